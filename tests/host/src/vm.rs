//! One VM: a module under wasmtime, its memory and its imports. It turns pointers into bytes and hands
//! them to [`Host`], which decides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmtime::{Caller, Config, Engine, Error, Extern, Instance, Linker, Module, Result, Store};

use crate::headers::Headers;
use crate::host::{Host, Ill, OK, Reply};

/// What was spent: exact, and the same in every run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Wasm instructions, as wasmtime's fuel counts them.
    pub fuel: u64,
    /// Calls of host functions, by their names.
    pub host_calls: BTreeMap<&'static str, u64>,
}

pub(crate) type Shared = Rc<RefCell<Host>>;

/// The host of the VM that runs, and the WASI clock's and chance's source.
struct Data {
    host: Shared,
}

pub(crate) struct Vm {
    store: Store<Data>,
    instance: Instance,
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut config = Config::new();
        config.consume_fuel(true);
        Engine::new(&config).expect("wasmtime starts")
    })
}

/// Compiled once for each file's bytes and process: tests start many VMs.
fn module(wasm: &[u8]) -> Result<Module> {
    static MODULES: Mutex<Vec<(u32, Module)>> = Mutex::new(Vec::new());
    let sum = crc32fast::hash(wasm);
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, module)) = modules.iter().find(|(s, _)| *s == sum) {
        return Ok(module.clone());
    }
    let module = Module::new(engine(), wasm)?;
    modules.push((sum, module.clone()));
    Ok(module)
}

const FUEL: u64 = u64::MAX / 2;

impl Vm {
    /// An instance that was initialized.
    pub(crate) fn new(wasm: &[u8], host: Shared) -> Result<Self> {
        let module = module(wasm)?;
        let mut linker = Linker::new(engine());
        link_wasi(&mut linker)?;
        link_proxy(&mut linker)?;
        let mut store = Store::new(engine(), Data { host });
        store.set_fuel(FUEL)?;
        let instance = linker.instantiate(&mut store, &module)?;
        let mut vm = Self { store, instance };
        for start in ["_initialize", "_start"] {
            if vm.has(start) {
                vm.call(start, &[])?;
                break;
            }
        }
        Ok(vm)
    }

    pub(crate) fn has(&mut self, export: &str) -> bool {
        self.instance.get_func(&mut self.store, export).is_some()
    }

    /// Calls a callback; `None` for one without a result.
    pub(crate) fn call(&mut self, export: &str, arguments: &[u32]) -> Result<Option<u32>> {
        let Some(function) = self.instance.get_func(&mut self.store, export) else {
            return Ok(None);
        };
        let arguments: Vec<_> = arguments
            .iter()
            .map(|a| wasmtime::Val::I32(*a as i32))
            .collect();
        let results = function.ty(&self.store).results().len();
        let mut out = vec![wasmtime::Val::I32(0); results];
        function.call(&mut self.store, &arguments, &mut out)?;
        Ok(out.first().and_then(wasmtime::Val::i32).map(|n| n as u32))
    }

    /// Fuel that was burnt since the VM was made.
    pub(crate) fn fuel(&self) -> u64 {
        FUEL - self.store.get_fuel().unwrap_or(FUEL)
    }

    /// Bytes of linear memory.
    pub(crate) fn memory(&mut self) -> usize {
        let memory = self.instance.get_memory(&mut self.store, "memory");
        memory.map_or(0, |memory| memory.data_size(&self.store))
    }
}

type Env<'a> = Caller<'a, Data>;

fn read(env: &mut Env<'_>, at: u32, size: u32) -> Result<Vec<u8>> {
    let memory = memory(env)?;
    let bytes = memory
        .data(&env)
        .get(at as usize..at as usize + size as usize);
    bytes
        .map(<[u8]>::to_vec)
        .ok_or_else(|| Error::msg("a pointer out of memory"))
}

fn write(env: &mut Env<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    let memory = memory(env)?;
    memory
        .write(env, at as usize, bytes)
        .map_err(|_| Error::msg("a pointer out of memory"))
}

fn memory(env: &mut Env<'_>) -> Result<wasmtime::Memory> {
    let memory = env.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| Error::msg("the module exports no memory"))
}

/// Puts bytes where the module wants them, and tells where that is.
fn give(env: &mut Env<'_>, bytes: &[u8], at: u32, size: u32) -> Result<()> {
    let mut pointer = 0;
    if !bytes.is_empty() {
        let names = ["proxy_on_memory_allocate", "malloc"];
        let function = names
            .iter()
            .find_map(|name| env.get_export(name).and_then(Extern::into_func));
        let function =
            function.ok_or_else(|| Error::msg("the module exports no proxy_on_memory_allocate"))?;
        let allocate = function.typed::<u32, u32>(&env)?;
        pointer = allocate.call(&mut *env, bytes.len() as u32)?;
        if pointer == 0 {
            return Err(Error::msg("the module has no memory left"));
        }
        write(env, pointer, bytes)?;
    }
    write(env, at, &pointer.to_le_bytes())?;
    write(env, size, &(bytes.len() as u32).to_le_bytes())
}

/// Asks the host, counts the call, and turns what comes back into a status or a trap.
fn ask<T>(
    env: &mut Env<'_>,
    name: &'static str,
    act: impl FnOnce(&mut Host) -> Reply<T>,
) -> Result<std::result::Result<T, u32>> {
    let host = Rc::clone(&env.data().host);
    let mut host = host.borrow_mut();
    *host.counts.entry(name).or_default() += 1;
    match act(&mut host) {
        Ok(value) => Ok(Ok(value)),
        Err(Ill::Status(status)) => Ok(Err(status)),
        Err(Ill::Trap(what)) => {
            host.violation(name, what.clone());
            Err(Error::msg(what))
        }
        Err(Ill::Crash(what)) => {
            host.violation(name, format!("the worker crashes: {what}"));
            Err(Error::msg(what))
        }
    }
}

fn status(result: std::result::Result<(), u32>) -> u32 {
    result.err().unwrap_or(OK)
}

fn text(env: &mut Env<'_>, at: u32, size: u32) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(env, at, size)?).into_owned())
}

/// What wasm32-wasip1's standard library imports. No file can be opened.
fn link_wasi(linker: &mut Linker<Data>) -> Result<()> {
    const WASI: &str = "wasi_snapshot_preview1";
    const BAD_FILE: u32 = 8;
    const NOT_CAPABLE: u32 = 76;
    fn variables(env: &Env<'_>) -> Vec<Vec<u8>> {
        let host = env.data().host.borrow();
        let pairs = host.settings.environment.iter();
        pairs
            .map(|(name, value)| format!("{name}={value}\0").into_bytes())
            .collect()
    }
    linker.func_wrap(
        WASI,
        "environ_sizes_get",
        |mut env: Env<'_>, count: u32, size: u32| -> Result<u32> {
            let variables = variables(&env);
            write(&mut env, count, &(variables.len() as u32).to_le_bytes())?;
            let bytes: usize = variables.iter().map(Vec::len).sum();
            write(&mut env, size, &(bytes as u32).to_le_bytes())?;
            Ok(0)
        },
    )?;
    linker.func_wrap(
        WASI,
        "environ_get",
        |mut env: Env<'_>, pointers: u32, mut at: u32| -> Result<u32> {
            for (n, variable) in variables(&env).iter().enumerate() {
                write(&mut env, pointers + 4 * n as u32, &at.to_le_bytes())?;
                write(&mut env, at, variable)?;
                at += variable.len() as u32;
            }
            Ok(0)
        },
    )?;
    linker.func_wrap(
        WASI,
        "clock_time_get",
        |mut env: Env<'_>, _: u32, _: u64, at: u32| -> Result<u32> {
            let now = env.data().host.borrow().now * 1_000_000;
            write(&mut env, at, &now.to_le_bytes())?;
            Ok(0)
        },
    )?;
    linker.func_wrap(
        WASI,
        "random_get",
        |mut env: Env<'_>, at: u32, size: u32| -> Result<u32> {
            let host = Rc::clone(&env.data().host);
            *host.borrow_mut().counts.entry("random_get").or_default() += 1;
            let mut bytes = vec![0; size as usize];
            host.borrow_mut().random.fill(&mut bytes);
            write(&mut env, at, &bytes)?;
            Ok(0)
        },
    )?;
    linker.func_wrap(
        WASI,
        "fd_write",
        |mut env: Env<'_>, _: u32, vectors: u32, count: u32, written: u32| -> Result<u32> {
            let mut all = Vec::new();
            for n in 0..count {
                let vector = read(&mut env, vectors + 8 * n, 8)?;
                let number = |at: usize| {
                    u32::from_le_bytes(vector[at..at + 4].try_into().unwrap_or_default())
                };
                all.extend(read(&mut env, number(0), number(4))?);
            }
            write(&mut env, written, &(all.len() as u32).to_le_bytes())?;
            env.data().host.borrow_mut().log(4, &all);
            Ok(0)
        },
    )?;
    linker.func_wrap(WASI, "proc_exit", |_: u32| -> Result<()> {
        Err(Error::msg("proc_exit"))
    })?;
    linker.func_wrap(WASI, "sched_yield", || 0u32)?;
    linker.func_wrap(WASI, "fd_close", |_: u32| BAD_FILE)?;
    linker.func_wrap(WASI, "fd_seek", |_: u32, _: u64, _: u32, _: u32| BAD_FILE)?;
    linker.func_wrap(WASI, "fd_fdstat_get", |_: u32, _: u32| BAD_FILE)?;
    linker.func_wrap(WASI, "fd_prestat_get", |_: u32, _: u32| BAD_FILE)?;
    linker.func_wrap(WASI, "fd_prestat_dir_name", |_: u32, _: u32, _: u32| {
        BAD_FILE
    })?;
    linker.func_wrap(
        WASI,
        "path_open",
        |_: u32, _: u32, _: u32, _: u32, _: u32, _: u64, _: u64, _: u32, _: u32| NOT_CAPABLE,
    )?;
    linker.func_wrap(
        WASI,
        "args_sizes_get",
        |mut env: Env<'_>, count: u32, size: u32| -> Result<u32> {
            write(&mut env, count, &0u32.to_le_bytes())?;
            write(&mut env, size, &0u32.to_le_bytes())?;
            Ok(0)
        },
    )?;
    linker.func_wrap(WASI, "args_get", |_: u32, _: u32| 0u32)?;
    Ok(())
}

/// Proxy-Wasm ABI 0.2.1 (<https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>), as far as
/// filters of this kind use it. An import that is missing here fails the instantiation by its name, as
/// `proxy_get_log_level` does in WasmX.
fn link_proxy(linker: &mut Linker<Data>) -> Result<()> {
    link_basics(linker)?;
    link_headers(linker)?;
    link_data(linker)?;
    link_flow(linker)?;
    link_metrics(linker)
}

fn link_basics(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_log",
        |mut env: Env<'_>, level: u32, at: u32, size: u32| -> Result<u32> {
            let message = read(&mut env, at, size)?;
            ask(&mut env, "proxy_log", |host| {
                host.log(level, &message);
                Ok(())
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut env: Env<'_>, at: u32| -> Result<u32> {
            let now = ask(&mut env, "proxy_get_current_time_nanoseconds", |host| {
                Ok(host.now)
            })?;
            let now = now.unwrap_or(0) * 1_000_000;
            write(&mut env, at, &now.to_le_bytes())?;
            Ok(OK)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_tick_period_milliseconds",
        |mut env: Env<'_>, period: u32| -> Result<u32> {
            ask(&mut env, "proxy_set_tick_period_milliseconds", |host| {
                host.set_tick_period(period)
            })
            .map(status)
        },
    )?;
    linker.func_wrap("env", "proxy_done", |mut env: Env<'_>| -> Result<u32> {
        ask(&mut env, "proxy_done", |_| Ok(())).map(status)
    })?;
    Ok(())
}

fn link_headers(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut env: Env<'_>, map: u32, at: u32, size: u32| -> Result<u32> {
            match ask(&mut env, "proxy_get_header_map_pairs", |host| {
                host.headers(map)
            })? {
                Ok(headers) => give(&mut env, &headers.serialize(), at, size).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_header_map_value",
        |mut env: Env<'_>,
         map: u32,
         name: u32,
         name_size: u32,
         at: u32,
         size: u32|
         -> Result<u32> {
            let name = text(&mut env, name, name_size)?;
            let value = ask(&mut env, "proxy_get_header_map_value", |host| {
                let headers = host.headers(map)?;
                headers
                    .get(&name)
                    .map(<[u8]>::to_vec)
                    .ok_or(Ill::Status(crate::host::NOT_FOUND))
            })?;
            match value {
                Ok(value) => give(&mut env, &value, at, size).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    type Change = fn(&mut Host, u32, &str, &[u8]) -> Reply;
    let changes: [(&'static str, Change); 2] = [
        ("proxy_replace_header_map_value", Host::replace_header),
        ("proxy_add_header_map_value", Host::add_header),
    ];
    for (call, change) in changes {
        linker.func_wrap(
            "env",
            call,
            move |mut env: Env<'_>,
                  map: u32,
                  name: u32,
                  name_size: u32,
                  at: u32,
                  size: u32|
                  -> Result<u32> {
                let (name, value) = (text(&mut env, name, name_size)?, read(&mut env, at, size)?);
                ask(&mut env, call, |host| change(host, map, &name, &value)).map(status)
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut env: Env<'_>, map: u32, name: u32, name_size: u32| -> Result<u32> {
            let name = text(&mut env, name, name_size)?;
            ask(&mut env, "proxy_remove_header_map_value", |host| {
                host.remove_header(map, &name)
            })
            .map(status)
        },
    )?;
    Ok(())
}

fn link_data(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut env: Env<'_>, buffer: u32, start: u32, most: u32, at: u32, size: u32| -> Result<u32> {
            match ask(&mut env, "proxy_get_buffer_bytes", |host| {
                host.buffer(buffer)
            })? {
                Ok(bytes) => {
                    let start = (start as usize).min(bytes.len());
                    let end = start.saturating_add(most as usize).min(bytes.len());
                    give(&mut env, &bytes[start..end], at, size).map(|()| OK)
                }
                Err(status) => Ok(status),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_buffer_bytes",
        |mut env: Env<'_>,
         buffer: u32,
         start: u32,
         length: u32,
         at: u32,
         size: u32|
         -> Result<u32> {
            let bytes = read(&mut env, at, size)?;
            ask(&mut env, "proxy_set_buffer_bytes", |host| {
                host.set_buffer(buffer, start as usize, length as usize, &bytes)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut env: Env<'_>, key: u32, key_size: u32, at: u32, size: u32, cas: u32| -> Result<u32> {
            let key = read(&mut env, key, key_size)?;
            match ask(&mut env, "proxy_get_shared_data", |host| {
                host.shared_get(&key)
            })? {
                Ok((value, number)) => {
                    give(&mut env, &value, at, size)?;
                    write(&mut env, cas, &number.to_le_bytes())?;
                    Ok(OK)
                }
                Err(status) => Ok(status),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut env: Env<'_>, key: u32, key_size: u32, at: u32, size: u32, cas: u32| -> Result<u32> {
            let (key, value) = (read(&mut env, key, key_size)?, read(&mut env, at, size)?);
            ask(&mut env, "proxy_set_shared_data", |host| {
                host.shared_set(&key, &value, cas)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut env: Env<'_>, path: u32, path_size: u32, at: u32, size: u32| -> Result<u32> {
            let path = read(&mut env, path, path_size)?;
            match ask(&mut env, "proxy_get_property", |host| host.property(&path))? {
                Ok(value) => give(&mut env, &value, at, size).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut env: Env<'_>, path: u32, path_size: u32, at: u32, size: u32| -> Result<u32> {
            let (path, value) = (read(&mut env, path, path_size)?, read(&mut env, at, size)?);
            ask(&mut env, "proxy_set_property", |host| {
                host.set_property(&path, &value)
            })
            .map(status)
        },
    )?;
    Ok(())
}

fn link_flow(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap("env", "proxy_close_stream", |_: u32| 0u32)?;
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |_: u32, _: u32, _: u32, _: u32, _: u32, _: u32| 0u32,
    )?;
    linker.func_wrap(
        "env",
        "proxy_continue_stream",
        |mut env: Env<'_>, _: u32| -> Result<u32> {
            ask(&mut env, "proxy_continue_stream", Host::continue_stream).map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_effective_context",
        |mut env: Env<'_>, context: u32| -> Result<u32> {
            ask(&mut env, "proxy_set_effective_context", |host| {
                host.set_effective_context(context)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_send_local_response",
        |mut env: Env<'_>,
         code: u32,
         _: u32,
         _: u32,
         body: u32,
         body_size: u32,
         headers: u32,
         headers_size: u32,
         grpc_status: i32|
         -> Result<u32> {
            let body = read(&mut env, body, body_size)?;
            let headers = read(&mut env, headers, headers_size)?;
            ask(&mut env, "proxy_send_local_response", |host| {
                let headers =
                    Headers::deserialize(&headers).ok_or(Ill::Status(crate::host::BAD_ARGUMENT))?;
                host.local_response(code, headers, &body, grpc_status)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_http_call",
        |mut env: Env<'_>,
         to: u32,
         to_size: u32,
         headers: u32,
         headers_size: u32,
         body: u32,
         body_size: u32,
         _: u32,
         _: u32,
         timeout: u32,
         token: u32|
         -> Result<u32> {
            let upstream = text(&mut env, to, to_size)?;
            let headers = read(&mut env, headers, headers_size)?;
            let body = read(&mut env, body, body_size)?;
            let made = ask(&mut env, "proxy_http_call", |host| {
                let headers =
                    Headers::deserialize(&headers).ok_or(Ill::Status(crate::host::BAD_ARGUMENT))?;
                host.http_call(&upstream, headers, &body, timeout)
            })?;
            match made {
                Ok(number) => write(&mut env, token, &number.to_le_bytes()).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    Ok(())
}

fn link_metrics(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_define_metric",
        |mut env: Env<'_>, kind: u32, name: u32, size: u32, id: u32| -> Result<u32> {
            let name = text(&mut env, name, size)?;
            match ask(&mut env, "proxy_define_metric", |host| {
                host.define_metric(kind, &name)
            })? {
                Ok(number) => write(&mut env, id, &number.to_le_bytes()).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut env: Env<'_>, id: u32, by: i64| -> Result<u32> {
            ask(&mut env, "proxy_increment_metric", |host| {
                host.increment_metric(id, by)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut env: Env<'_>, id: u32, to: u64| -> Result<u32> {
            ask(&mut env, "proxy_record_metric", |host| {
                host.record_metric(id, to)
            })
            .map(status)
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_metric",
        |mut env: Env<'_>, id: u32, at: u32| -> Result<u32> {
            match ask(&mut env, "proxy_get_metric", |host| host.metric(id))? {
                Ok(value) => write(&mut env, at, &value.to_le_bytes()).map(|()| OK),
                Err(status) => Ok(status),
            }
        },
    )?;
    Ok(())
}
