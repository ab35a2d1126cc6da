;; The least that any Proxy-Wasm filter can do that must see every header of a request: it asks Envoy for
;; them once and looks at none. It has the callbacks that a filter with several configurations in one VM
;; and work on responses needs. Whatever costs more than this is the filter's own.
(module
  (import "env" "proxy_get_header_map_pairs"
    (func $get_header_map_pairs (param i32 i32 i32) (result i32)))
  (memory (export "memory") 4)
  ;; Where the host writes the address and the length of what it gives: 0 and 4. What it gives: from 65536.
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (drop (call $get_header_map_pairs (i32.const 0) (i32.const 0) (i32.const 4)))
    (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "proxy_on_delete") (param i32)))
