//! The least that a Proxy-Wasm filter can be: modules that are called back and do nothing, so that what
//! they cost is the host's part. They are written in WebAssembly's text form and assembled for every run,
//! which needs no compiler.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// How much of a filter such a module is: each is the one before it and something more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Floor {
    /// It is told of the request's headers.
    RequestHeaders,
    /// And when a request begins: which configuration it belongs to, where a VM has several.
    Create,
    /// And when it ends: whoever waits may leave.
    Delete,
    /// And of the response's headers: what no filter can do without that works on responses too.
    ResponseHeaders,
    /// And it asks once for the request's headers, and looks at none of them: whatever costs more than
    /// this is the filter's own.
    Ask,
}

impl Floor {
    /// From the least to the most.
    pub(crate) const ALL: [Self; 5] = [
        Self::RequestHeaders,
        Self::Create,
        Self::Delete,
        Self::ResponseHeaders,
        Self::Ask,
    ];

    /// The file of this module in the folder of all of them.
    pub(crate) fn file(self, folder: &Path) -> PathBuf {
        folder.join(format!("{self:?}.wasm"))
    }

    /// Assembles all of them into this folder.
    pub(crate) fn assemble(folder: &Path) -> Result<()> {
        for floor in Self::ALL {
            let module = wat::parse_str(floor.text())?;
            fs::write(floor.file(folder), module).context("writing the smallest peers")?;
        }
        Ok(())
    }

    /// The host writes where its answer lies, and how long it is, to 0 and 4; the answer itself, to 65536.
    fn text(self) -> String {
        let parts = [
            (Self::Ask, IMPORT),
            (Self::RequestHeaders, BASE),
            (
                Self::Create,
                r#"(func (export "proxy_on_context_create") (param i32 i32))"#,
            ),
            (
                Self::Delete,
                r#"(func (export "proxy_on_delete") (param i32))"#,
            ),
            (
                Self::ResponseHeaders,
                r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#,
            ),
            (
                Self::RequestHeaders,
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)"#,
            ),
            (
                Self::Ask,
                "(drop (call $ask (i32.const 0) (i32.const 0) (i32.const 4)))",
            ),
            (Self::RequestHeaders, "(i32.const 0))"),
        ];
        let parts = parts.iter().filter(|(from, _)| self >= *from);
        let parts: Vec<&str> = parts.map(|(_, text)| *text).collect();
        format!("(module\n{})", parts.join("\n"))
    }
}

const IMPORT: &str =
    r#"(import "env" "proxy_get_header_map_pairs" (func $ask (param i32 i32 i32) (result i32)))"#;

const BASE: &str = r#"(memory (export "memory") 4)
(func (export "proxy_abi_version_0_2_1"))
(func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))"#;
