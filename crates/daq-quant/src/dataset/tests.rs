use super::*;
use crate::npz::write_npz;
use image::{ImageBuffer, Rgb};

fn input(name: &str, shape: &[i64]) -> InputSpec {
    InputSpec { name: name.into(), shape: shape.iter().map(|&d| usize::try_from(d).ok()).collect() }
}

fn picture() -> Vec<InputSpec> {
    vec![input("x", &[1, 3, 2, 2])]
}

fn save(path: &Path, format: image::ImageFormat) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    ImageBuffer::from_pixel(4, 4, Rgb([200u8, 100, 50])).save_with_format(path, format).unwrap();
}

fn floats(shape: &[usize]) -> Array {
    let count = shape.iter().product::<usize>();
    Array::new(shape.to_vec(), (0..count).map(|i| i as f32).collect::<Vec<_>>().into())
}

fn names(set: &Dataset) -> Vec<String> {
    (0..set.len()).map(|i| set.name(i)).collect()
}

#[test]
fn folders_are_searched_in_order() {
    use image::ImageFormat::{Jpeg, Png};
    let dir = tempfile::tempdir().unwrap();
    for (name, format) in
        [("b.JPEG", Jpeg), ("sub/deep/a.Png", Png), ("c.jpg", Jpeg), ("a.jpeg", Png)]
    {
        save(&dir.path().join(name), format);
    }
    std::fs::write(dir.path().join("labels.txt"), "a.jpeg 0").unwrap();
    std::fs::write(dir.path().join("d.jpg"), "no picture").unwrap();
    floats(&[1]).write_npy(&dir.path().join("e.npy")).unwrap();
    std::fs::create_dir(dir.path().join("folder.png")).unwrap();

    let set = Dataset::open(dir.path(), &picture()).unwrap();
    assert_eq!(set.kind(), DatasetKind::Pictures);
    assert_eq!(names(&set), ["a.jpeg", "b.JPEG", "c.jpg", "d.jpg", "sub/deep/a.Png"]);
    let settings = Preprocess::default();
    let loaded: Vec<_> = set.iter(&settings).collect();
    for (name, sample) in &loaded {
        match (name.as_str(), sample) {
            ("d.jpg", Err(error)) => {
                let text = error.to_string();
                assert!(text.contains("d.jpg") && text.contains("cannot decode"), "{text}");
            }
            (name, sample) => {
                let sample = sample.as_ref().unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(
                    (sample[0].0.as_str(), sample[0].1.shape.as_slice()),
                    ("x", &[1, 3, 2, 2][..])
                );
            }
        }
    }

    let single = Dataset::open(&dir.path().join("c.jpg"), &picture()).unwrap();
    assert_eq!(names(&single), ["c.jpg"]);
}

#[test]
fn the_choice_is_fixed_by_the_seed() {
    // Worked out apart from this code; SplitMix64 begins with e220a8397b1dcdaf for seed 0.
    assert_eq!(choose_indices(10, 10, 0), [8, 4, 2, 9, 1, 6, 5, 3, 0, 7]);
    assert_eq!(choose_indices(10, 4, 0), [8, 4, 2, 9]);
    assert_eq!(choose_indices(500, 5, 1), [283, 373, 485, 223, 224]);
    assert_eq!(choose_indices(1_000_000, 3, 42), [741_564, 159_911, 278_602]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    floats(&[10, 2]).write_npy(&path).unwrap();
    let mut set = Dataset::open(&path, &[input("x", &[1, 2])]).unwrap();
    assert_eq!(set.choose(99, 0), 10);
    assert_eq!(
        (set.choose(4, 0), names(&set)),
        (
            4,
            vec!["a.npy[2]", "a.npy[4]", "a.npy[8]", "a.npy[9]"]
                .into_iter()
                .map(str::to_owned)
                .collect()
        )
    );
    let sample = set.load(1, &Preprocess::default()).unwrap();
    assert_eq!(sample, [("x".into(), Array::new(vec![1, 2], vec![8f32, 9.0].into()))]);
}

#[test]
fn arrays_divide_into_samples() {
    for (array, shape, expected) in [
        (&[1usize, 3, 2, 2][..], &[1i64, 3, 2, 2][..], Some((1, &[1usize, 3, 2, 2][..]))),
        (&[3, 2, 2], &[1, 3, 2, 2], Some((1, &[1, 3, 2, 2]))),
        (&[3, 2, 2], &[-1, 3, -1, -1], Some((1, &[1, 3, 2, 2]))),
        (&[7, 3, 2, 2], &[1, 3, 2, 2], Some((7, &[1, 3, 2, 2]))),
        (&[7, 3, 2, 5], &[-1, 3, -1, -1], Some((7, &[1, 3, 2, 5]))),
        (&[7, 1, 3, 2, 2], &[1, 3, 2, 2], Some((7, &[1, 3, 2, 2]))),
        (&[8, 3, 2, 2], &[4, 3, 2, 2], Some((2, &[4, 3, 2, 2]))),
        (&[7, 3, 2, 2], &[4, 3, 2, 2], None),
        (&[7, 3, 2, 3], &[1, 3, 2, 2], None),
        (&[3, 2], &[1, 3, 2, 2], None),
        (&[], &[], Some((1, &[]))),
        (&[5], &[], Some((5, &[]))),
        (&[], &[1, 2], None),
        (&[5], &[5], Some((1, &[5]))),
        (&[0, 2], &[1, 2], Some((0, &[1, 2]))),
    ] {
        let found = Parts::new(array, &input("x", shape).shape);
        let expected = expected.map(|(count, shape)| Parts { count, shape: shape.to_vec() });
        assert_eq!(found, expected, "{array:?} for {shape:?}");
    }
}

#[test]
fn npz_files_serve_several_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (floats(&[3, 2]), Array::new(vec![3], vec![7i64, 8, 9].into()));
    for file in ["1.npz", "2.NPZ"] {
        write_npz(&dir.path().join(file), [("b", &b), ("a", &a), ("unused", &a)]).unwrap();
    }
    let inputs = [input("a", &[1, 2]), input("b", &[1])];
    let set = Dataset::open(dir.path(), &inputs).unwrap();
    assert_eq!(
        names(&set),
        ["1.npz[0]", "1.npz[1]", "1.npz[2]", "2.NPZ[0]", "2.NPZ[1]", "2.NPZ[2]"]
    );
    let expected = [
        ("a".to_owned(), Array::new(vec![1, 2], vec![2f32, 3.0].into())),
        ("b".to_owned(), Array::new(vec![1], vec![8i64].into())),
    ];
    assert_eq!(set.load(4, &Preprocess::default()).unwrap(), expected);
    assert_eq!(set.target(&Preprocess::default()).unwrap(), None);
}

#[test]
fn unusable_data_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("empty")).unwrap();
    save(&at("pictures/a.jpg"), image::ImageFormat::Jpeg);
    std::fs::write(at("a.txt"), "").unwrap();
    floats(&[3, 5]).write_npy(&at("a.npy")).unwrap();
    floats(&[0, 2]).write_npy(&at("none.npy")).unwrap();
    let whole = std::fs::read(at("a.npy")).unwrap();
    std::fs::write(at("cut.npy"), &whole[..whole.len() - 1]).unwrap();
    let (two, three) = (floats(&[2, 2]), floats(&[3, 2]));
    write_npz(&at("uneven.npz"), [("a", &two), ("b", &three)]).unwrap();
    write_npz(&at("other.npz"), [("c", &two), ("d", &three)]).unwrap();

    let one = vec![input("x", &[1, 2])];
    let both = vec![input("a", &[1, 2]), input("b", &[1, 2])];
    for (name, inputs, part) in [
        ("missing", &one, "cannot read the data"),
        ("empty", &one, "looked for .jpg, .jpeg and .png"),
        ("a.txt", &one, "looked for"),
        ("a.npy", &one, "shape [3, 5] does not fit the input `x` of shape [1, 2]"),
        ("none.npy", &one, "0 long"),
        ("cut.npy", &one, "truncated"),
        ("a.npy", &both, "give an .npz"),
        ("pictures", &both, "this one has 2 (a, b)"),
        ("uneven.npz", &both, "`a` has 2 samples but `b` has 3"),
        ("other.npz", &both, "no array for the input `a`; it holds: c, d"),
    ] {
        let error = Dataset::open(&at(name), inputs).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(name), "{name}: {error}");
    }
    // The settings do not fit the model: known before any picture is read.
    let set = Dataset::open(&at("pictures"), &one).unwrap();
    let error = set.target(&Preprocess::default()).unwrap_err().to_string();
    assert!(error.contains("takes no picture"), "{error}");
}
