//! A folder of handlers, a running pipeline, and a compiler.

use host::supervisor::builds::{Build, Builds, LastStates, Notice, Options};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The executable that becomes the checker.
pub const HOST: &str = env!("CARGO_BIN_EXE_host");

/// No condition takes this long, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    root: tempfile::TempDir,
    pub options: Options,
    builds: Option<Builds>,
    notices: Option<Receiver<Notice>>,
}

impl Stage {
    pub fn new() -> Stage {
        let root = tempfile::tempdir().unwrap();
        let (handlers, runtime) = (root.path().join("handlers"), root.path().join("runtime"));
        fs::create_dir(&handlers).unwrap();
        fs::DirBuilder::new().mode(0o700).create(&runtime).unwrap();
        let options = Options {
            handlers,
            runtime,
            reload: true,
            symbols: BTreeMap::new(),
            known: BTreeMap::new(),
            check_timeout: Duration::from_secs(10),
            states: LastStates::default(),
        };
        Stage { root, options, builds: None, notices: None }
    }

    /// Starts the pipeline and returns the notices of the first look, the last of which is `Scanned`.
    pub fn start(&mut self) -> Vec<Notice> {
        let (sender, receiver) = channel();
        let notice = move |notice| {
            let _ = sender.send(notice);
        };
        self.builds = Some(Builds::start_with(Path::new(HOST), self.options.clone(), notice).unwrap());
        self.notices = Some(receiver);
        let mut notices = Vec::new();
        loop {
            notices.push(self.next());
            if matches!(notices.last(), Some(Notice::Scanned { .. })) {
                return notices;
            }
        }
    }

    pub fn builds(&self) -> &Builds {
        self.builds.as_ref().unwrap()
    }

    pub fn stop(&mut self) {
        self.builds = None;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A path in the folder of handlers.
    pub fn handler(&self, name: &str) -> PathBuf {
        self.options.handlers.join(name)
    }

    /// The next notice, whatever it is.
    pub fn next(&self) -> Notice {
        self.notices.as_ref().unwrap().recv_timeout(PATIENCE).expect("a notice within a minute")
    }

    pub fn nothing_was_told(&self) -> bool {
        self.notices.as_ref().unwrap().try_recv().is_err()
    }

    /// The next notice, which must be a sound build of this module.
    pub fn sound(&self, module: &str) -> Build {
        match self.next() {
            Notice::Sound(build) if build.module == module => build,
            other => panic!("expected a sound build of {module}, got {other:?}"),
        }
    }

    /// Sound builds of the module until one says that it is `version`; no other notice may come.
    pub fn version(&self, module: &str, version: &str) -> Build {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let build = self.sound(module);
            if build.report.version.as_deref() == Some(version) {
                return build;
            }
        }
        panic!("{module} did not come to version {version}");
    }

    /// The reason of the next notice, which must refuse this module.
    pub fn refused(&self, module: &str) -> String {
        match self.next() {
            Notice::Refused { module: name, reason, .. } if name == module => reason,
            other => panic!("expected {module} to be refused, got {other:?}"),
        }
    }

    /// Compiles C to `output`, in place, as a build script would.
    pub fn cc(&self, output: &Path, source: &str, arguments: &[&str]) {
        compile("cc", "c", output, source, arguments);
    }
}

/// Compiles `source`, with the host's declarations in front of it, to a shared library, unless the arguments ask for
/// something else.
pub fn compile(compiler: &str, language: &str, output: &Path, source: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("module.{language}"));
    fs::write(&file, format!("{DECLARATIONS}{source}")).unwrap();
    let mut command = Command::new(compiler);
    let something_else = arguments.contains(&"-c") || arguments.contains(&"-pie");
    command.args((!something_else).then_some("-shared"));
    command.args(["-fPIC", "-O1", "-o"]).arg(output).arg(&file).args(arguments);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The shapes that matter to a check, as `host.h` has them.
const DECLARATIONS: &str = r#"
#include <stdint.h>
#ifdef __cplusplus
#define EXPORT extern "C" __attribute__((visibility("default")))
#else
#define EXPORT __attribute__((visibility("default")))
#endif
typedef struct host_module_info {
    uint32_t magic, size, abi, flags;
    const char *name, *version;
    int32_t (*init)(const void *);
    void (*stop)(void);
} host_module_info;
#define MODULE(...) EXPORT host_module_info host_module = { \
    .magic = 0x54534f48u, .size = sizeof(host_module_info), .abi = 0x10000u, __VA_ARGS__ }
"#;

/// A module that is sound and says which version it is.
pub fn module(version: &str) -> String {
    format!(
        "EXPORT void *application(void *env, void *start) {{ return env; }}
         MODULE(.name = \"module\", .version = \"{version}\");
         EXPORT __attribute__((weak)) const uint32_t host_abi_version; const uint32_t host_abi_version = 0x10000u;"
    )
}

/// Waits for a condition, within patience.
pub fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "a condition did not come true");
        std::thread::sleep(Duration::from_millis(1));
    }
}
