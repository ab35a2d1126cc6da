//! The release filter exports every callback that ABI 0.2.1 has for HTTP filters: WasmX calls some of them
//! without asking, and without those for trailers Envoy lets a held body go.

mod world;

#[test]
fn every_callback_for_http_is_exported() {
    let exports = proxy_wasm_host::exports(&world::wasm()).expect("a module");
    let needed = [
        "proxy_on_context_create",
        "proxy_on_vm_start",
        "proxy_on_configure",
        "proxy_on_tick",
        "proxy_on_request_headers",
        "proxy_on_request_body",
        "proxy_on_request_trailers",
        "proxy_on_response_headers",
        "proxy_on_response_body",
        "proxy_on_response_trailers",
        "proxy_on_http_call_response",
        "proxy_on_done",
        "proxy_on_log",
        "proxy_on_delete",
        "proxy_abi_version_0_2_1",
    ];
    let has = |name: &str| exports.iter().any(|export| export == name);
    let missing: Vec<_> = needed.iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {exports:?}");
    assert!(
        has("proxy_on_memory_allocate") || has("malloc"),
        "{exports:?}"
    );
}
