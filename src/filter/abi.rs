//! The Proxy-Wasm ABI 0.2.1 by hand: the host's functions behind [`Host`], and the functions that the
//! host calls. The only file with `unsafe`, and the only one that the native build leaves out.
//!
//! The SDK (`proxy-wasm` 0.2.5) is not used, for four reasons that were measured: it panics on every
//! status that it does not expect and on names and values that are not UTF-8, and a panic is an outage on
//! Envoy and lets requests through unfiltered on Kong; it drops the answer to a call whose client has
//! left, which hangs everybody who waits for that answer; it turns header maps into two `Vec`s a header,
//! which costs more than the rest of a request without references; and it exports every callback, each of
//! which the host then calls.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use zeroize::Zeroizing;

use super::header_map;
use super::host::{
    Buffer, Dialect, Half, Host, Level, Map, MetricKind, OutgoingCall, Refused, SharedValue, Write,
};
use super::vm::{Flow, Vm};
use crate::time::{Span, Timestamp};

const OK: u32 = 0;
/// `proxy_log_level_t`: what the filter itself never says.
const CRITICAL: u32 = 5;
/// `proxy_send_local_response`: "no gRPC status".
const NO_GRPC_STATUS: i32 = -1;
/// No request has this id. Envoy refuses to focus on it; WasmX ignores the argument and says OK, which
/// tells the two apart in every callback, `on_configure` included. (A property would do for a request,
/// but reading one in a root context kills WasmX's worker.)
const NO_CONTEXT: u32 = u32::MAX;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        data: *const u8,
        data_size: usize,
    ) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(variables: *mut *mut u8, text: *mut u8) -> u32;
}

/// The environment: `NAME=value`, each with a NUL behind it.
fn environment() -> Option<Zeroizing<Vec<u8>>> {
    let (mut count, mut size) = (0, 0);
    // SAFETY: the host writes two numbers.
    checked(unsafe { environ_sizes_get(&raw mut count, &raw mut size) }).ok()?;
    let mut variables = vec![core::ptr::null_mut(); count];
    let mut text = Zeroizing::new(vec![0; size]);
    // SAFETY: the host writes as many addresses and bytes as it said: an environment does not change.
    checked(unsafe { environ_get(variables.as_mut_ptr(), text.as_mut_ptr()) }).ok()?;
    Some(text)
}

/// The host that this VM runs in.
pub(super) struct ProxyWasmHost {
    dialect: Dialect,
}

impl ProxyWasmHost {
    fn detect() -> Self {
        // SAFETY: takes a number and returns a status; both hosts check the number or ignore it.
        let status = unsafe { proxy_set_effective_context(NO_CONTEXT) };
        let dialect = if status == OK {
            Dialect::WasmX
        } else {
            Dialect::Envoy
        };
        Self { dialect }
    }
}

const fn checked(status: u32) -> Result<(), Refused> {
    if status == OK {
        Ok(())
    } else {
        Err(Refused(status))
    }
}

/// Calls a host function that hands over memory, and takes that memory.
fn taken(
    call: impl FnOnce(*mut *mut u8, *mut usize) -> u32,
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    taken_plain(call).map(Zeroizing::new)
}

fn taken_plain(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Refused> {
    let mut data: *mut u8 = core::ptr::null_mut();
    let mut size = 0;
    checked(call(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host wrote `size` bytes to a block that it got from `proxy_on_memory_allocate(size)`,
    // which made it as a `Vec` of exactly this capacity and gave it up.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

impl Host for ProxyWasmHost {
    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn now(&self) -> Timestamp {
        let mut nanoseconds = 0;
        // SAFETY: the host writes a u64 to the address, and nothing else.
        unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
        Timestamp(nanoseconds / 1_000_000)
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or(0)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let environment = environment()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|variable| {
            let value = variable.strip_prefix(name.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        String::from_utf8(value.to_vec()).ok()
    }

    fn log(&self, level: Level, message: &str) {
        // SAFETY: the host reads the message and keeps nothing of it.
        unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
    }

    fn set_tick_period(&self, period: Span) {
        let milliseconds = u32::try_from(period.0).unwrap_or(u32::MAX);
        // SAFETY: takes a number only.
        unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
    }

    fn buffer(&self, buffer: Buffer) -> Result<Zeroizing<Vec<u8>>, Refused> {
        // SAFETY: `data` and `size` are valid for one write each.
        taken(|data, size| unsafe {
            proxy_get_buffer_bytes(buffer as u32, 0, usize::MAX, data, size)
        })
    }

    fn header_map(&self, map: Map) -> Result<Vec<u8>, Refused> {
        // SAFETY: as in `buffer`.
        taken_plain(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
    }

    fn header(&self, map: Map, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        // SAFETY: as in `buffer`; the name is only read.
        taken(|data, size| unsafe {
            proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
        })
        .ok()
    }

    fn set_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host reads name and value and keeps copies.
        checked(unsafe {
            proxy_replace_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn add_header(&self, map: Map, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        // SAFETY: as in `set_header`.
        checked(unsafe {
            proxy_add_header_map_value(
                map as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn remove_header(&self, map: Map, name: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host only reads the name.
        checked(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
    }

    fn set_buffer(&self, buffer: Buffer, old: usize, new: &[u8]) -> Result<(), Refused> {
        // WasmX writes no more than `size` bytes; Envoy takes more than there is for all of it.
        let size = old.max(new.len());
        // SAFETY: the host copies the bytes.
        checked(unsafe { proxy_set_buffer_bytes(buffer as u32, 0, size, new.as_ptr(), new.len()) })
    }

    fn property(&self, path: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        // SAFETY: as in `buffer`; the path is only read.
        taken(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
            .ok()
    }

    fn set_property(&self, path: &[u8], value: &[u8]) -> Result<(), Refused> {
        // SAFETY: the host copies path and value.
        checked(unsafe {
            proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len())
        })
    }

    fn call(&self, call: &OutgoingCall<'_>) -> Result<u32, Refused> {
        let headers = Zeroizing::new(header_map::serialize(call.headers));
        let timeout = u32::try_from(call.timeout.0).unwrap_or(u32::MAX).max(1);
        let mut token = 0;
        // SAFETY: the host reads the byte ranges during the call only, and writes one u32.
        checked(unsafe {
            proxy_http_call(
                call.upstream.as_ptr(),
                call.upstream.len(),
                headers.as_ptr(),
                headers.len(),
                call.body.as_ptr(),
                call.body.len(),
                core::ptr::null(),
                0,
                timeout,
                &raw mut token,
            )
        })?;
        Ok(token)
    }

    fn resume(&self, half: Half) -> Result<(), Refused> {
        // SAFETY: takes a number only.
        checked(unsafe { proxy_continue_stream(half as u32) })
    }

    fn respond(
        &self,
        status: u32,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
        grpc_status: Option<u32>,
    ) -> Result<(), Refused> {
        let grpc_status = grpc_status.and_then(|status| i32::try_from(status).ok());
        let headers = header_map::serialize(headers);
        // SAFETY: the host reads the byte ranges during the call only.
        checked(unsafe {
            proxy_send_local_response(
                status,
                core::ptr::null(),
                0,
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                grpc_status.unwrap_or(NO_GRPC_STATUS),
            )
        })
    }

    fn focus(&self, context: u32) -> Result<(), Refused> {
        // SAFETY: takes a number; Envoy refuses one that is not a living context.
        checked(unsafe { proxy_set_effective_context(context) })
    }

    fn shared_get(&self, key: &[u8]) -> Option<SharedValue> {
        let mut cas = 0;
        // SAFETY: as in `buffer`; `cas` takes one u32.
        let bytes = taken(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
        })
        .ok()?;
        Some(SharedValue { bytes, cas })
    }

    fn shared_set(&self, key: &[u8], value: &[u8], write: Write) -> Result<(), Refused> {
        let cas = match (write, self.dialect) {
            (Write::Replace(cas), _) => cas,
            // WasmX: 0 creates and never replaces. Envoy: 0 replaces whatever is there, while a number
            // that no entry has yet is refused for an entry and accepted for an absent key.
            (Write::Create, Dialect::WasmX) => 0,
            (Write::Create, Dialect::Envoy) => u32::MAX,
        };
        // SAFETY: the host copies key and value.
        checked(unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
        })
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Refused> {
        let mut id = 0;
        // SAFETY: the host copies the name, and writes one u32.
        checked(unsafe {
            proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id)
        })?;
        Ok(id)
    }

    fn add_to_metric(&self, id: u32, by: i64) {
        // SAFETY: takes numbers only.
        unsafe { proxy_increment_metric(id, by) };
    }

    fn record_metric(&self, id: u32, value: u64) {
        // SAFETY: takes numbers only.
        unsafe { proxy_record_metric(id, value) };
    }

    fn metric(&self, id: u32) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the host writes one u64.
        checked(unsafe { proxy_get_metric(id, &raw mut value) }).ok()?;
        Some(value)
    }
}

/// What the one thread of a VM has.
struct OneThread<T>(T);

// SAFETY: a Proxy-Wasm VM has one thread; the hosts give each of theirs a VM of its own.
unsafe impl<T> Sync for OneThread<T> {}

static VM: OneThread<RefCell<Option<Vm<ProxyWasmHost>>>> = OneThread(RefCell::new(None));

/// Logs where a panic happened, and never its text, which may hold a value.
fn log_place_of_panic(info: &std::panic::PanicHookInfo<'_>) {
    if let Some(at) = info.location() {
        let text = format!("panic at {}:{}", at.file(), at.line());
        // SAFETY: the host reads the text during the call only.
        unsafe { proxy_log(CRITICAL, text.as_ptr(), text.len()) };
    }
}

/// Runs `act` on this VM's state. The host never calls back into the filter while the filter calls it
/// (memory allocation apart, which touches no state), so `otherwise` is for a host that breaks that rule.
fn with_vm<R>(otherwise: R, act: impl FnOnce(&mut Vm<ProxyWasmHost>) -> R) -> R {
    match VM.0.try_borrow_mut() {
        Ok(mut vm) => act(vm.get_or_insert_with(new_vm)),
        Err(_) => otherwise,
    }
}

/// Once in its life: not to be compiled into each callback.
#[cold]
#[inline(never)]
fn new_vm() -> Vm<ProxyWasmHost> {
    Vm::new(ProxyWasmHost::detect())
}

const fn flow(flow: Flow) -> u32 {
    match flow {
        Flow::Continue => 0,
        Flow::Pause => 1,
    }
}

// SAFETY (of every `no_mangle` below): the names are the ABI's, and nothing else here defines them.

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: the host calls `_initialize` once, before everything else, as WASI's reactors want it.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(log_place_of_panic));
}

/// Memory for what the host hands over; [`taken`] turns it back into the `Vec` that it is here.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut block = Vec::new();
    // A host that asks for more than there is gets a null pointer, not an abort.
    if size == 0 || block.try_reserve_exact(size).is_err() {
        return core::ptr::null_mut();
    }
    let data = block.as_mut_ptr();
    core::mem::forget(block);
    data
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    with_vm((), |vm| vm.create_context(context, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_context: u32, _size: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, _size: u32) -> u32 {
    with_vm(0, |vm| u32::from(vm.configure(context)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(context: u32) {
    with_vm((), |vm| vm.tick(context));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, end: u32) -> u32 {
    with_vm(flow(Flow::Pause), |vm| {
        flow(vm.request_headers(context, end != 0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
    with_vm(flow(Flow::Pause), |vm| {
        flow(vm.request_body(context, size, end != 0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _headers: u32, _end: u32) -> u32 {
    with_vm(flow(Flow::Continue), |vm| {
        flow(vm.response_headers(context))
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, size: usize, end: u32) -> u32 {
    with_vm(flow(Flow::Continue), |vm| {
        flow(vm.response_body(context, size, end != 0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    _context: u32,
    token: u32,
    headers: u32,
    body_size: usize,
    _trailers: u32,
) {
    with_vm((), |vm| vm.call_answered(token, headers, body_size));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    with_vm((), |vm| vm.delete_context(context));
}
