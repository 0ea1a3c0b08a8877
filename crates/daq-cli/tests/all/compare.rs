//! `daq compare`, the report and the check of the preprocessing, on the example of the project.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::common::{Folder, Ran, example};
use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

const WRONG: [&str; 4] = ["--mean", "0", "--std", "1"];

fn compare(f: &Folder, quantized: &str, more: &[&str]) -> Ran {
    let pictures = example("pictures");
    let args = ["compare", "m.onnx", quantized, "--images", &pictures, "--samples", "24"];
    f.daq(&args).daq_more(more).ok()
}

fn page(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap_or_else(|e| panic!("not well-formed: {e}"))
}

fn by_id<'a>(page: &'a Document, id: &str) -> Node<'a, 'a> {
    let found = page.descendants().find(|n| n.attribute("id") == Some(id));
    found.unwrap_or_else(|| panic!("nothing has the id {id}"))
}

/// The full values of the `data` elements below a node.
fn values(node: Node) -> Vec<f64> {
    let data =
        node.descendants().filter(|n| n.has_tag_name(("http://www.w3.org/1999/xhtml", "data")));
    data.map(|n| n.attribute("value").unwrap().parse().unwrap()).collect()
}

/// Equal but for the last digits, which a parser of JSON may round.
#[track_caller]
fn assert_same(shown: &[f64], expected: &[f64]) {
    assert_eq!(shown.len(), expected.len());
    for (i, (a, b)) in shown.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{i}: {a} instead of {b}");
    }
}

fn tags<'a>(page: &'a Document, name: &'static str) -> impl Iterator<Item = Node<'a, 'a>> {
    page.descendants().filter(move |n| n.is_element() && n.tag_name().name() == name)
}

#[test]
fn models_in_the_wrong_order_are_named_rightly() {
    let f = Folder::with_models();
    let pictures = example("pictures");
    let swapped = ["compare", "m.daq", "m.onnx", "--images", &pictures, "--samples", "2"];
    f.run(&swapped).fails(1, &["m.daq: the first model is quantized"]);
    let both_float = ["compare", "m.onnx", "m.onnx", "--images", &pictures, "--samples", "2"];
    f.run(&both_float).fails(1, &["m.onnx: the second model has no 8-bit operator"]);
}

#[test]
fn numbers_are_those_of_eval_and_of_the_report() {
    let f = Folder::with_models();
    let names = example("classes.txt");
    let args = ["--suggest", "--report", "r.html", "--class-names", &names, "--json"];
    let json = compare(&f, "m.daq", &args).json();

    // Another way to the same scores.
    let pictures = example("pictures");
    let eval = ["eval", "m.daq", "--images", &pictures, "--samples", "24", "--reference", "m.onnx"];
    let scores = f.daq(&eval).daq_more(&["--json"]).ok().json();
    for key in ["agreement", "top1", "n"] {
        assert_eq!(json[key], scores[key], "{key}");
    }
    // The float model at the 8-bit one's channel scales rounds a little otherwise.
    let [compared, evaluated] = [&json, &scores].map(|from| from["sqnr_db"].as_f64().unwrap());
    assert!((compared - evaluated).abs() < 1e-3, "{compared} {evaluated}");

    let text = String::from_utf8(f.read("r.html")).unwrap();
    let page = page(&text);
    for (id, key) in [
        ("agreement", "agreement"),
        ("sqnr", "sqnr_db"),
        ("top1", "top1"),
        ("float-top1", "float_top1"),
    ] {
        assert_same(&values(by_id(&page, id)), &[json[key].as_f64().unwrap()]);
    }
    let operators = json["operators"].as_array().unwrap();
    let local = |o: &Value| o["local"]["sqnr_db"].as_f64().unwrap();
    let accumulated = |o: &Value| o["accumulated"]["sqnr_db"].as_f64().unwrap();
    let all: Vec<f64> = operators.iter().flat_map(|o| [local(o), accumulated(o)]).collect();
    assert!(operators.len() > 100, "{}", operators.len());
    assert_same(&values(by_id(&page, "operators")), &all);

    let worst = by_id(&page, "worst");
    let numbers: Vec<usize> = worst
        .children()
        .filter_map(|n| Some(n.attribute("data-number")?.parse().unwrap()))
        .collect();
    assert_eq!(numbers.len(), 10);
    let shown: Vec<f64> =
        numbers.iter().flat_map(|&i| [local(&operators[i]), accumulated(&operators[i])]).collect();
    assert_same(&values(worst), &shown);
    let mut own: Vec<f64> =
        operators.iter().filter(|o| o["own_scale"] == true).map(local).collect();
    own.sort_by(f64::total_cmp);
    assert_eq!(numbers.iter().map(|&i| local(&operators[i])).collect::<Vec<_>>(), own[..10]);

    let trials = json["suggestions"]["trials"].as_array().unwrap();
    let gains: Vec<f64> = trials.iter().map(|t| t["gain_db"].as_f64().unwrap()).collect();
    assert!(gains.len() >= 5 && gains.is_sorted_by(|a, b| a >= b), "{gains:?}");
    let sqnr: Vec<f64> = trials.iter().map(|t| t["sqnr_db"].as_f64().unwrap()).collect();
    assert_same(&values(by_id(&page, "suggestions")), &sqnr);
    assert!(text.contains("180 degrees") && text.contains("data:image/jpeg;base64,"));
}

#[test]
fn a_suggestion_brings_what_was_measured() {
    let f = Folder::with_models();
    // The even samples calibrate, the odd ones measure: the same by hand.
    for folder in ["all", "even", "odd"] {
        std::fs::create_dir(f.path(folder)).unwrap();
    }
    for i in 0..20 {
        let name = format!("{i:04}.jpg");
        let half = if i % 2 == 0 { "even" } else { "odd" };
        for folder in ["all", half] {
            std::fs::copy(example(&format!("pictures/{name}")), f.path(folder).join(&name))
                .unwrap();
        }
    }
    let args = ["compare", "m.onnx", "q.onnx", "--images", "all", "--suggest", "--json"];
    let json = f.run(&args).ok().json();
    let trials = json["suggestions"]["trials"].as_array().unwrap();
    let minmax = trials.iter().find(|t| t["flags"] == "--calibration minmax").unwrap();
    let settings = example("preprocess.toml");
    let args = ["quantize", "--image_dir", "even", "--preprocess", &settings, "-o", "again.onnx"];
    f.daq(&args).daq_more(&["--calibration", "minmax", "m.onnx", "again.txt"]).ok();
    let eval = ["eval", "again.onnx", "--images", "odd", "--reference", "m.onnx", "--json"];
    let scores = f.run(&eval).ok().json();
    assert_eq!(scores["agreement"], minmax["agreement"]);
    let sqnr = |scores: &Value| scores["sqnr_db"].as_f64().unwrap();
    assert!((sqnr(&scores) - sqnr(minmax)).abs() < 1e-6, "{scores} {minmax}");
}

#[test]
fn the_operator_with_a_wrong_range_is_named() {
    let f = Folder::with_models();
    // Calibrated on what is compared, so that nothing else is clipped.
    let (pictures, settings) = (example("pictures"), example("preprocess.toml"));
    f.daq(&["quantize", "--image_dir", &pictures, "--samples", "24", "--preprocess", &settings])
        .daq_more(&["-o", "q.onnx", "m.onnx", "table.txt"])
        .ok();
    let before = compare(&f, "q.onnx", &["--json"]).json();
    assert_eq!(before["first_that_hurts"], Value::Null);
    let operators = before["operators"].as_array().unwrap();
    let spoiled = operators.iter().position(|o| o["node"] == "Conv@18").unwrap();
    let tensor = operators[spoiled]["tensor"].as_str().unwrap();
    // An eighth of its scale: most values saturate.
    let table = String::from_utf8(f.read("table.txt")).unwrap();
    let changed: Vec<String> = table
        .lines()
        .map(|line| {
            let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if words.first().is_some_and(|w| w == tensor) {
                words[2] = (words[2].parse::<f32>().unwrap() / 8.0).to_string();
            }
            words.join(" ")
        })
        .collect();
    assert_ne!(changed.join("\n"), table.trim_end(), "the table names {tensor}");
    f.write("changed.txt", changed.join("\n") + "\n");
    f.run(&["convert", "q.onnx", "spoiled.daq", "changed.txt"]).ok();

    let after = compare(&f, "spoiled.daq", &["--json"]).json();
    assert_eq!(after["first_that_hurts"], spoiled);
    let operator = &after["operators"][spoiled];
    assert!(operator["output"]["clipped"].as_f64().unwrap() > 0.05, "{operator}");
    assert!(operator["local"]["sqnr_db"].as_f64().unwrap() < 10.0, "{operator}");
    assert!(after["sqnr_db"].as_f64() <= before["sqnr_db"].as_f64());
    let text = compare(&f, "spoiled.daq", &["--top", "1"]).out;
    let line = text.lines().find(|l| l.starts_with("the first operator that hurts")).unwrap();
    assert!(line.contains("Conv@18") && line.contains("beyond the range"), "{line}");
}

#[test]
fn wrong_constants_are_noticed_and_right_ones_are_not() {
    let f = Folder::with_models();
    let (pictures, settings) = (example("pictures"), example("preprocess.toml"));
    let quantize = |more: &[&str]| {
        let args = ["quantize", "--image_dir", &pictures, "--preprocess", &settings, "--samples"];
        let rest = ["40", "-o", "again.onnx", "m.onnx", "again.txt", "--json"];
        f.daq(&args).daq_more(&[&rest[..], more].concat()).ok()
    };
    let eval = |more: &[&str]| {
        let args = ["eval", "m.onnx", "--images", &pictures, "--preprocess", &settings, "--json"];
        f.daq(&args).daq_more(more).ok()
    };
    for right in [quantize(&[]), eval(&[]), compare(&f, "m.daq", &["--json"])] {
        assert!(!right.err.contains("prepared wrongly"), "{}", right.err);
        assert_eq!(right.json()["preprocessing"]["warning"], Value::Null);
    }
    let compared = compare(&f, "m.daq", &[&WRONG[..], &["--json"]].concat());
    for wrong in [quantize(&WRONG), eval(&WRONG), compared] {
        assert!(wrong.err.contains("prepared wrongly"), "{}", wrong.err);
        let check = &wrong.json()["preprocessing"];
        // What is suggested is as good as what the model was trained with.
        let flags = check["better"]["flags"].as_str().unwrap();
        let flags: Vec<&str> = flags.split(' ').chain(["--samples", "40"]).collect();
        let top1 = eval(&flags).json()["top1"].as_f64().unwrap();
        assert!(top1 >= 0.95, "{flags:?}: {top1}");
    }
}

/// A report of a good quantization and one of pictures that were prepared wrongly.
fn reports(f: &Folder) {
    let (pictures, settings) = (example("pictures"), example("preprocess.toml"));
    for (report, more) in [("good.html", &[][..]), ("bad.html", &WRONG)] {
        let args = ["quantize", "--image_dir", &pictures, "--preprocess", &settings, "--samples"];
        let rest = ["24", "-o", "r.onnx", "m.onnx", "r.txt", "--report", report];
        f.daq(&args).daq_more(&[&rest[..], more].concat()).ok();
    }
}

#[test]
fn the_page_is_whole_accessible_and_alone() {
    let f = Folder::with_models();
    reports(&f);
    for (report, level) in [("good.html", "good"), ("bad.html", "bad")] {
        let text = String::from_utf8(f.read(report)).unwrap();
        let page = page(&text);
        let root = page.root_element();
        assert_eq!(root.attribute("lang"), Some("en"));
        assert!(
            tags(&page, "title")
                .next()
                .is_some_and(|t| t.text().is_some_and(|t| t.contains("m.onnx")))
        );
        assert!(tags(&page, "meta").any(|m| m.attribute("name") == Some("viewport")));
        let verdict = by_id(&page, "verdict");
        assert_eq!(verdict.attribute("class"), Some(format!("verdict {level}").as_str()));
        // Nothing from elsewhere.
        for name in ["script", "link", "iframe", "object", "embed"] {
            assert_eq!(tags(&page, name).count(), 0, "{name}");
        }
        for node in page.descendants().filter(Node::is_element) {
            for attribute in
                node.attributes().filter(|a| ["src", "href", "srcset"].contains(&a.name()))
            {
                assert!(attribute.value().starts_with("data:"), "{attribute:?}");
            }
        }
        let style = tags(&page, "style").next().unwrap().text().unwrap();
        assert!(!style.contains("url(") && !style.contains("@import"));
        assert!(style.contains("prefers-color-scheme: dark"));
        let outside = text
            .replace("http://www.w3.org/1999/xhtml", "")
            .replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http:") && !outside.contains("https:"));
        // For readers who do not see it.
        assert!(tags(&page, "img").count() >= 4);
        assert!(tags(&page, "img").all(|i| i.attribute("alt").is_some_and(|a| !a.is_empty())));
        let drawing =
            |s: &Node| s.attribute("aria-hidden").is_some() || s.attribute("aria-label").is_some();
        assert!(tags(&page, "svg").all(|s| drawing(&s)));
        for table in tags(&page, "table") {
            let head = |n: &Node| {
                n.is_element() && n.tag_name().name() == "th" && n.attribute("scope").is_some()
            };
            assert!(table.descendants().any(|n| head(&n)), "a table without headings");
        }
        let ids: Vec<&str> = page.descendants().filter_map(|n| n.attribute("id")).collect();
        let labels = page.descendants().filter_map(|n| n.attribute("aria-labelledby"));
        labels.for_each(|l| assert!(ids.contains(&l), "{l}"));
        assert!(text.contains("--calibration") && text.contains("--image_dir"));
    }
}

#[test]
fn good_and_bad_look_different_in_a_browser() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|b| {
        Command::new(b)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    }) else {
        eprintln!("SKIPPED: no chromium to take screenshots with");
        return;
    };
    let f = Folder::with_models();
    reports(&f);
    // The verdict's background, in each of the style's two schemes.
    for (report, scheme, tint) in [
        ("good.html", "1", [0xe3, 0xf4, 0xea]),
        ("bad.html", "1", [0xfb, 0xe6, 0xe4]),
        ("good.html", "0", [0x12, 0x29, 0x1d]),
        ("bad.html", "0", [0x33, 0x19, 0x17]),
    ] {
        let picture = screenshot(browser, &f, report, scheme);
        let same = |p: &&image::Rgb<u8>| p.0.iter().zip(tint).all(|(a, b)| a.abs_diff(b) <= 2);
        let share = picture.pixels().filter(same).count() as f64 / f64::from(390 * 844);
        assert!(share > 0.08, "{report} {scheme}: {share} of the first screen of a phone");
    }
}

fn screenshot(browser: &str, f: &Folder, report: &str, scheme: &str) -> image::RgbImage {
    let (shot, profile) = (f.path("shot.png"), f.path("profile"));
    let _ = std::fs::remove_file(&shot);
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--window-size=390,844"])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", shot.display()))
        .arg(format!("file://{}", f.path(report).display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(180) {
            child.kill().unwrap();
            panic!("{browser} does not end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    image::open(&shot).unwrap().into_rgb8()
}
