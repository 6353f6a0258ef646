//! `host check FILE…`.

use crate::stage::{HOST, Stage, module};
use host::supervisor::builds::check_file;
use std::path::Path;

#[test]
fn a_sound_file_is_described_and_a_bad_one_explained() {
    let stage = Stage::new();
    let path = stage.handler("x.so");
    let source = module("1.2").replace("MODULE(", "EXPORT void app(void) {} MODULE(.flags = 5, ");
    stage.cc(&path, &source, &["-ftls-model=initial-exec"]);
    let expected = format!(
        "{}\n  name     module 1.2\n  ABI      1.0\n  exports  app, application\n  \
         flags    NOT_THREAD_SAFE, STREAM_INPUT\n  reload   at once, in the running worker\n",
        path.display()
    );
    assert_eq!(check_file(Path::new(HOST), &path), (true, expected));

    let source = "static __thread int value; EXPORT int *application(void) { return &value; }";
    stage.cc(&path, source, &["-ftls-model=initial-exec"]);
    let (is_sound, text) = check_file(Path::new(HOST), &path);
    assert!(
        is_sound && text.contains("reload   by a new worker:\n") && text.contains("- it uses static TLS"),
        "{text}"
    );

    stage.cc(&path, "EXPORT void aplication(void) {}", &[]);
    let (is_sound, text) = check_file(Path::new(HOST), &path);
    assert!(!is_sound);
    assert!(text.ends_with("will not load: it exports no \"application\"; did you mean \"aplication\"?\n"), "{text}");
    assert!(!check_file(Path::new(HOST), &stage.handler("none.so")).0);
}
