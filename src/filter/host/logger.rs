//! The filter's log lines on their way to the host: a logger for the `log` crate, and a panic hook. The
//! SDK's own are not installed, because they print the text of a panic, which may hold a value.

use proxy_wasm::hostcalls;
use proxy_wasm::types::LogLevel;

struct HostLogger;

impl log::Log for HostLogger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // Lines of dependencies are not ours to judge: they may hold what they work on.
        metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => LogLevel::Error,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Info => LogLevel::Info,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Trace => LogLevel::Trace,
        };
        // Both hosts answer OK, whatever the level (measured).
        let _ = match record.args().as_str() {
            Some(text) => hostcalls::log(level, text),
            None => hostcalls::log(level, &record.args().to_string()),
        };
    }

    fn flush(&self) {}
}

/// Installs the logger and the panic hook, once for each VM. The host filters by its own log level.
pub(crate) fn install() {
    if log::set_logger(&HostLogger).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|info| {
        if let Some(at) = info.location() {
            let text = format!("panic at {}:{}", at.file(), at.line());
            let _ = hostcalls::log(LogLevel::Critical, &text);
        }
    }));
}
