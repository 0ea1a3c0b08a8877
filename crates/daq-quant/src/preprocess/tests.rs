use super::*;
use image::{ImageBuffer, ImageFormat, Rgb};

/// The picture of tests/data/preprocess_pillow.py.
fn source(width: usize, height: usize) -> ImageBuffer<Rgb<u8>, Vec<u8>> {
    ImageBuffer::from_fn(width as u32, height as u32, |x, y| {
        Rgb([0, 1, 2].map(|c| ((x * 7 + y * 13 + c * 29 + x * y % 31 * 5) % 256) as u8))
    })
}

/// Settings that leave pixels as they are.
fn plain() -> Preprocess {
    let one = |v| PerChannel::new(&[v]).unwrap();
    Preprocess { mean: one(0.0), std: one(1.0), ..Preprocess::default() }
}

fn saved(picture: &ImageBuffer<Rgb<u8>, Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    picture.save_with_format(&path, ImageFormat::Png).unwrap();
    (dir, path)
}

#[test]
fn agrees_with_pillow() {
    for line in include_str!("../../tests/data/preprocess_pillow.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        let pixels: Vec<f32> = words[7..].iter().map(|w| w.parse().unwrap()).collect();
        let name = words[..7].join(" ");
        let settings = Preprocess {
            resize: words[2].parse().unwrap(),
            interpolation: words[3].parse().unwrap(),
            color: words[4].parse().unwrap(),
            ..plain()
        };
        let channels = if words[4] == "gray" { 1 } else { 3 };
        let (height, width) = (number(5), number(6));
        let target = ImageTarget { height, width, channels, layout: Layout::Nhwc };
        let (_dir, path) = saved(&source(number(0), number(1)));
        let read = settings.load(&path, &target).unwrap();
        assert_eq!(read.len(), pixels.len(), "{name}");
        let worst = read.iter().zip(&pixels).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let allowed = if words[3] == "nearest" { 0.0 } else { 1.0 };
        assert!(worst <= allowed, "{name}: differs by {worst}");

        // The other layout holds the same numbers elsewhere.
        let planes = settings.load(&path, &ImageTarget { layout: Layout::Nchw, ..target }).unwrap();
        for (i, v) in read.iter().enumerate() {
            assert_eq!(planes[i % channels * height * width + i / channels], *v, "{name}");
        }
    }
}

#[test]
fn pixels_are_normalised_and_padding_with_them() {
    // A red picture, half as high as wide, padded below.
    let (_dir, path) = saved(&ImageBuffer::from_pixel(4, 2, Rgb([255, 0, 51])));
    let target = ImageTarget { height: 2, width: 2, channels: 3, layout: Layout::Nchw };
    let settings =
        Preprocess { resize: "pad".parse().unwrap(), pad_value: 127.5, ..Preprocess::default() };
    let (red, green, blue) =
        ((255.0 - 123.675) / 58.395, -116.28 / 57.12, (51.0 - 103.53) / 57.375);
    let pad = [(127.5 - 123.675) / 58.395, (127.5 - 116.28) / 57.12, (127.5 - 103.53) / 57.375];
    assert_eq!(
        settings.load(&path, &target).unwrap(),
        [red, red, pad[0], pad[0], green, green, pad[1], pad[1], blue, blue, pad[2], pad[2]]
    );
    // One number serves all channels; bgr turns the picture's channels, not the means.
    let settings = Preprocess {
        color: Color::Bgr,
        mean: "1,2,3".parse().unwrap(),
        std: "2".parse().unwrap(),
        ..Preprocess::default()
    };
    let target = ImageTarget { height: 1, width: 1, channels: 3, layout: Layout::Nhwc };
    assert_eq!(settings.load(&path, &target).unwrap(), [25.0, -1.0, 126.0]);
}

#[test]
fn a_very_long_picture_needs_no_very_large_one() {
    let (_dir, path) = saved(&source(20_000, 1));
    let settings = Preprocess { resize: "crop:0.875".parse().unwrap(), ..plain() };
    let target = ImageTarget { height: 224, width: 224, channels: 3, layout: Layout::Nchw };
    // Resized as a whole it would be 5,120,000 pixels wide; the middle one fills the crop.
    let read = settings.load(&path, &target).unwrap();
    let middle = source(20_000, 1).get_pixel(10_000, 0).0;
    assert!((read[112] - f32::from(middle[0])).abs() <= 8.0, "{} {middle:?}", read[112]);
}

#[test]
fn the_target_comes_from_the_models_input() {
    let dims = |d: &[i64]| d.iter().map(|&d| usize::try_from(d).ok()).collect::<Vec<_>>();
    let nchw =
        |height, width, channels| ImageTarget { height, width, channels, layout: Layout::Nchw };
    let gray = Preprocess { color: Color::Gray, ..plain() };
    let sized = Preprocess { size: Some("10x20".parse().unwrap()), ..plain() };
    let nhwc = ImageTarget { layout: Layout::Nhwc, ..nchw(48, 192, 3) };
    for (settings, shape, expected) in [
        (plain(), dims(&[1, 3, 224, 200]), Ok(nchw(224, 200, 3))),
        (plain(), dims(&[-1, 3, 8, 3]), Ok(nchw(8, 3, 3))),
        (plain(), dims(&[1, 48, 192, 3]), Ok(nhwc)),
        (gray, dims(&[1, 1, 28, 28]), Ok(nchw(28, 28, 1))),
        (sized.clone(), dims(&[1, 3, -1, -1]), Ok(nchw(10, 20, 3))),
        (sized, dims(&[1, 3, 8, 8]), Ok(nchw(10, 20, 3))),
        (plain(), dims(&[1, 3, -1, 8]), Err("[1, 3, ?, 8] leaves the picture's size open")),
        (plain(), dims(&[4, 3, 8, 8]), Err("batch")),
        (plain(), dims(&[1, 10]), Err("takes no picture")),
        (plain(), dims(&[1, 4, 8, 8]), Err("takes no picture")),
        (plain(), dims(&[1, 1, 8, 8]), Err("gray")),
        (plain(), dims(&[1, 3, 0, 8]), Err("cannot be made")),
        (plain(), dims(&[1, 3, 1_000_000, 1_000_000]), Err("cannot be made")),
        (
            Preprocess { color: Color::Gray, ..Preprocess::default() },
            dims(&[1, 1, 8, 8]),
            Err("one number each"),
        ),
        (
            Preprocess { std: "0".parse().unwrap(), ..plain() },
            dims(&[1, 3, 8, 8]),
            Err("divided by 0"),
        ),
    ] {
        match (settings.target(&shape), expected) {
            (Ok(target), Ok(expected)) => assert_eq!(target, expected, "{shape:?}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{shape:?}: {error}")
            }
            (found, _) => panic!("{shape:?}: {found:?}"),
        }
    }
}

#[test]
fn settings_survive_toml_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    let other = Preprocess {
        resize: Resize::Pad(PadPlace::Right),
        interpolation: Interpolation::Bicubic,
        color: Color::Bgr,
        mean: "127.5".parse().unwrap(),
        std: "0.1,0.2,0.3".parse().unwrap(),
        pad_value: 127.1,
        size: Some("48x192".parse().unwrap()),
    };
    for settings in [Preprocess::default(), other] {
        std::fs::write(&path, settings.to_toml()).unwrap();
        assert_eq!(Preprocess::from_toml_file(&path).unwrap(), settings, "{}", settings.to_toml());
        assert_eq!(Preprocess::from_json(&settings.to_json()).unwrap(), settings);
    }
    assert!(Preprocess::default().to_json().contains("123.675,116.28"));
    std::fs::write(&path, "mean = 127\nresize = 'crop:0.875'\n").unwrap();
    let expected = Preprocess {
        mean: "127".parse().unwrap(),
        resize: Resize::Crop(0.875),
        ..Preprocess::default()
    };
    assert_eq!(Preprocess::from_toml_file(&path).unwrap(), expected);
}

#[test]
fn wrong_settings_name_the_key_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    for (text, parts) in [
        ("meen = 1", ["p.toml", "`meen`", "`mean`"]),
        ("resize = 'crop'", ["p.toml", "resize `crop`", "crop:0.875"]),
        ("color = 'yuv'", ["p.toml", "`yuv`", "rgb, bgr or gray"]),
        ("mean = [1, 2]", ["p.toml", "mean", "three"]),
        ("mean = 'x'", ["p.toml", "mean", "three"]),
        ("std = [1, 0, 1]", ["p.toml", "std = 1,0,1", "divided by 0"]),
        ("pad_value = 300", ["p.toml", "pad_value = 300", "0 to 255"]),
        ("pad_value = nan", ["p.toml", "pad_value = NaN", "0 to 255"]),
        ("resize = ", ["p.toml", "line 1", ""]),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Preprocess::from_toml_file(&path).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
    let error = Preprocess::from_json(r#"{"meen": 1}"#).unwrap_err().to_string();
    assert!(error.contains("`meen`"), "{error}");
    let error = Preprocess::from_toml_file(&dir.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn an_open_side_is_the_pictures() {
    let (dir, path) = saved(&source(9, 4));
    let sized = |size: &str| Preprocess { size: size.parse().ok(), ..plain() };
    let open = [None, Some(3), None, None];
    for (settings, dims, height, width) in [
        (sized(""), open, 4, 9),
        (sized("8"), open, 8, 8),
        (sized("8x?"), open, 8, 18),
        // 9 * 7 / 4 = 15.75 and 4 * 5 / 9 = 2.2
        (sized("7x?"), open, 7, 16),
        (sized("?x5"), open, 3, 5),
        (sized(""), [None, Some(3), Some(6), None], 6, 14),
        (sized("7x?"), [None, Some(3), Some(6), Some(5)], 7, 5),
        (sized(""), [Some(1), None, None, Some(3)], 4, 9),
    ] {
        let target = settings.target_of(&dims, &path).unwrap();
        assert_eq!((target.height, target.width), (height, width), "{settings:?} {dims:?}");
    }
    let long = [None, Some(3), Some(usize::MAX), None];
    for (settings, dims, why) in [
        (sized(""), long, "cannot be made"),
        (sized(""), [None, Some(2), None, None], "takes no picture"),
    ] {
        let error = settings.target_of(&dims, &path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let why = sized("8x?").target(&open).unwrap_err().to_string();
    assert!(why.contains("leaves the picture's size open"), "{why}");
    let other = dir.path().join("b.png");
    std::fs::write(&other, "GIF89a").unwrap();
    let why = sized("").target_of(&open, &other).unwrap_err().to_string();
    assert!(why.contains("b.png") && why.contains("neither a JPEG nor a PNG"), "{why}");
}
