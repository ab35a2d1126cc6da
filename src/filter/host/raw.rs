//! The host functions that are declared again beside the SDK (proxy-wasm ABI 0.2.1), because the SDK's
//! wrapper panics on a status that a host really answers, or costs too much on the hot path. Everything
//! else goes through `proxy_wasm::hostcalls`. This is the only file with `unsafe`.
//!
//! | function | why not the SDK's |
//! | --- | --- |
//! | `proxy_get_header_map_pairs` | the SDK makes two `Vec`s of each header, on every request |
//! | `proxy_get_header_map_value`, `…_replace_…`, `…_add_…`, `…_remove_…` | panic on `BAD_ARGUMENT`: Envoy after a resume, and for a map that is not there |
//! | `proxy_get_buffer_bytes`, `proxy_set_buffer_bytes` | panic on `BAD_ARGUMENT`: WasmX for an answer that was cut off |
//! | `proxy_get_property`, `proxy_set_property` | panic on the status of a read-only or unknown variable; paths as bytes |
//! | `proxy_define_metric`, `proxy_get_metric`, `proxy_record_metric` | panic when the host has no room |
//! | `proxy_send_local_response` | a gRPC status together with an HTTP status |

use super::HostStatus;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
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
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
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
}

const OK: u32 = 0;
/// `proxy_send_local_response`: "no gRPC status".
const NO_GRPC_STATUS: i32 = -1;

const fn checked(status: u32) -> Result<(), HostStatus> {
    if status == OK {
        Ok(())
    } else {
        Err(HostStatus(status))
    }
}

/// Calls a host function that hands over memory, and takes ownership of that memory.
fn taken(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostStatus> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size = 0;
    checked(call(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host wrote `size` bytes to a block that it got from the SDK's
    // `proxy_on_memory_allocate(size)`, which made it as a boxed slice of exactly this size and gave it up.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

pub(super) fn buffer(buffer: u32) -> Result<Vec<u8>, HostStatus> {
    // SAFETY: `data` and `size` are valid for one write each.
    taken(|data, size| unsafe { proxy_get_buffer_bytes(buffer, 0, usize::MAX, data, size) })
}

pub(super) fn set_buffer(buffer: u32, size: usize, new: &[u8]) -> Result<(), HostStatus> {
    // SAFETY: the host copies the bytes.
    checked(unsafe { proxy_set_buffer_bytes(buffer, 0, size, new.as_ptr(), new.len()) })
}

pub(super) fn header_map(map: u32) -> Result<Vec<u8>, HostStatus> {
    // SAFETY: as in `buffer`.
    taken(|data, size| unsafe { proxy_get_header_map_pairs(map, data, size) })
}

pub(super) fn header(map: u32, name: &[u8]) -> Result<Vec<u8>, HostStatus> {
    // SAFETY: as in `buffer`; the name is only read.
    taken(|data, size| unsafe {
        proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, size)
    })
}

pub(super) fn set_header(map: u32, name: &[u8], value: &[u8]) -> Result<(), HostStatus> {
    let (value_data, value_size) = (value.as_ptr(), value.len());
    // SAFETY: the host reads name and value and keeps copies.
    checked(unsafe {
        proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value_data, value_size)
    })
}

pub(super) fn add_header(map: u32, name: &[u8], value: &[u8]) -> Result<(), HostStatus> {
    let (value_data, value_size) = (value.as_ptr(), value.len());
    // SAFETY: as in `set_header`.
    checked(unsafe {
        proxy_add_header_map_value(map, name.as_ptr(), name.len(), value_data, value_size)
    })
}

pub(super) fn remove_header(map: u32, name: &[u8]) -> Result<(), HostStatus> {
    // SAFETY: the host only reads the name.
    checked(unsafe { proxy_remove_header_map_value(map, name.as_ptr(), name.len()) })
}

pub(super) fn property(path: &[u8]) -> Result<Vec<u8>, HostStatus> {
    // SAFETY: as in `buffer`; the path is only read.
    taken(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

pub(super) fn set_property(path: &[u8], value: &[u8]) -> Result<(), HostStatus> {
    // SAFETY: the host copies path and value.
    checked(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

pub(super) fn define_metric(kind: u32, name: &str) -> Result<u32, HostStatus> {
    let mut id = 0;
    // SAFETY: the host copies the name, and writes one u32.
    checked(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

pub(super) fn record_metric(id: u32, value: u64) -> Result<(), HostStatus> {
    // SAFETY: takes numbers only.
    checked(unsafe { proxy_record_metric(id, value) })
}

pub(super) fn increment_metric(id: u32, by: i64) -> Result<(), HostStatus> {
    // SAFETY: takes numbers only.
    checked(unsafe { proxy_increment_metric(id, by) })
}

pub(super) fn metric(id: u32) -> Result<u64, HostStatus> {
    let mut value = 0;
    // SAFETY: the host writes one u64.
    checked(unsafe { proxy_get_metric(id, &raw mut value) })?;
    Ok(value)
}

/// `headers` is a serialized map.
pub(super) fn respond(
    status: u32,
    headers: &[u8],
    body: &[u8],
    grpc_status: Option<i32>,
) -> Result<(), HostStatus> {
    // SAFETY: the host reads the byte ranges during the call only.
    checked(unsafe {
        proxy_send_local_response(
            status,
            std::ptr::null(),
            0,
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status.unwrap_or(NO_GRPC_STATUS),
        )
    })
}
