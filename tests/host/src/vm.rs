//! One VM: a module under wasmtime, its memory and its imports. It turns pointers into bytes and hands
//! them to [`Host`], which decides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Mutex, OnceLock, PoisonError};

use wasmtime::{
    Caller, Config, Engine, Error, Extern, Instance, InstancePre, Linker, Module, Result, Store,
};

use crate::host::{Host, Ill, Reply};

mod imports;
mod wasi;

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

thread_local! {
    /// Linked once for each module and thread: simulations start many VMs.
    static LINKED: RefCell<Vec<(u32, InstancePre<Data>)>> = const { RefCell::new(Vec::new()) };
}

fn linked(wasm: &[u8]) -> Result<InstancePre<Data>> {
    let sum = crc32fast::hash(wasm);
    let known = LINKED.with_borrow(|all| all.iter().find(|(s, _)| *s == sum).cloned());
    if let Some((_, linked)) = known {
        return Ok(linked);
    }
    let mut linker = Linker::new(engine());
    wasi::link(&mut linker)?;
    imports::link(&mut linker)?;
    let module = module(wasm)?;
    // The SDK's traits refer to functions that this filter never calls (gRPC, queues).
    linker.define_unknown_imports_as_traps(&module)?;
    let linked = linker.instantiate_pre(&module)?;
    LINKED.with_borrow_mut(|all| all.push((sum, linked.clone())));
    Ok(linked)
}

/// The names of the functions that this module exports.
///
/// # Errors
/// When it is no module.
pub fn exports(wasm: &[u8]) -> Result<Vec<String>> {
    let module = module(wasm)?;
    let functions = module.exports().filter(|e| e.ty().func().is_some());
    Ok(functions.map(|e| e.name().to_owned()).collect())
}

const FUEL: u64 = u64::MAX / 2;

impl Vm {
    /// An instance that was initialized.
    pub(crate) fn new(wasm: &[u8], host: Shared) -> Result<Self> {
        let linked = linked(wasm)?;
        let mut store = Store::new(engine(), Data { host });
        store.set_fuel(FUEL)?;
        let instance = linked.instantiate(&mut store)?;
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
            host.crashed = true;
            Err(Error::msg(what))
        }
    }
}

fn text(env: &mut Env<'_>, at: u32, size: u32) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(env, at, size)?).into_owned())
}
