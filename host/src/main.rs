//! The `host` command.
fn main() {
    if std::env::args_os().next().is_some_and(|name| name == host::handler::check::PROCESS) {
        host::handler::check::main();
    }
}
