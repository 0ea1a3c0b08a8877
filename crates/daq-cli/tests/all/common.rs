//! What the tests of the `daq` binary share: running it, and a folder to run it in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example of the project: model, pictures, settings.
pub fn example(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/textlines");
    root.join(name).to_str().unwrap().to_owned()
}

/// The example's model.
pub fn float_model() -> String {
    example("ppocr_cls_static_48x192.onnx")
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Checks that it went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// Checks that it failed with this code, and that stderr holds each of the parts.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in:\n{}", self.err);
        }
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\n{}", self.out))
    }
}

/// A temporary folder in which the binary runs.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    /// With `m.onnx` (float), `q.onnx` (quantized), `table.txt`, `m.daq` and `p.jpg` in it.
    pub fn with_models() -> Self {
        let folder = Self::new();
        std::fs::copy(float_model(), folder.path("m.onnx")).unwrap();
        std::fs::copy(example("pictures/0000.jpg"), folder.path("p.jpg")).unwrap();
        let pictures = example("pictures");
        folder
            .daq(&["quantize", "--image_dir", &pictures, "--samples", "4", "--preprocess"])
            .daq_more(&[&example("preprocess.toml"), "-o", "q.onnx", "m.onnx", "table.txt"])
            .ok();
        folder.run(&["convert", "q.onnx", "m.daq", "table.txt"]).ok();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_owned()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A command to add arguments to.
    pub fn daq(&self, args: &[&str]) -> Call {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daq"));
        command.args(args).current_dir(self.0.path());
        Call(command)
    }

    /// Runs the binary.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        self.daq(args).run()
    }

    /// The content of every file, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(self.0.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let content = std::fs::read(entry.path()).unwrap_or_default();
            files.insert(name, content);
        }
        files
    }
}

/// A command with arguments.
pub struct Call(pub Command);

impl Call {
    #[track_caller]
    pub fn daq_more(mut self, args: &[&str]) -> Ran {
        self.0.args(args);
        self.run()
    }

    /// Runs it. Whatever happens, it must not panic.
    #[track_caller]
    pub fn run(mut self) -> Ran {
        ran(self.0.output().unwrap())
    }
}

#[track_caller]
fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran =
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}
