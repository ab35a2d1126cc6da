//! The WASI functions that a Proxy-Wasm host gives: clock, chance, environment, and no files.

use std::rc::Rc;

use wasmtime::{Error, Linker, Result};

use super::{Data, Env, read, write};

/// What wasm32-wasip1's standard library imports. No file can be opened.
pub(super) fn link(linker: &mut Linker<Data>) -> Result<()> {
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
            let now = env.data().host.borrow().time() * 1_000_000;
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
