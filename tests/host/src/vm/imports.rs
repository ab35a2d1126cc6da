//! The host functions of Proxy-Wasm: pointers are read here, and [`Host`] decides.

use wasmtime::{Linker, Result};

use super::{Data, Env, ask, give, read, text, write};
use crate::headers::Headers;
use crate::host::{BAD_ARGUMENT, Host, Ill, NOT_FOUND, OK, Reply};

/// Proxy-Wasm ABI 0.2.1 (<https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1>), as far as
/// filters of this kind use it. An import that is missing here fails the instantiation by its name, as
/// `proxy_get_log_level` does in WasmX.
pub(super) fn link(linker: &mut Linker<Data>) -> Result<()> {
    link_basics(linker)?;
    link_numbers(linker)?;
    link_headers(linker)?;
    link_data(linker)?;
    link_flow(linker)?;
    link_metrics(linker)
}

/// Asks the host for something that has no result; the status.
fn act(
    env: &mut Env<'_>,
    name: &'static str,
    request: impl FnOnce(&mut Host) -> Reply,
) -> Result<u32> {
    answer(env, name, request, |_, ()| Ok(()))
}

/// Asks the host for something, and puts the result into the module's memory; the status.
fn answer<T>(
    env: &mut Env<'_>,
    name: &'static str,
    request: impl FnOnce(&mut Host) -> Reply<T>,
    put: impl FnOnce(&mut Env<'_>, T) -> Result<()>,
) -> Result<u32> {
    match ask(env, name, request)? {
        Ok(value) => put(env, value).map(|()| OK),
        Err(status) => Ok(status),
    }
}

/// Headers as a module writes them.
fn headers_of(bytes: &[u8]) -> Reply<Headers> {
    Headers::deserialize(bytes).ok_or(Ill::Status(BAD_ARGUMENT))
}

/// Calls with one number, which the host function of the same form takes.
fn link_numbers(linker: &mut Linker<Data>) -> Result<()> {
    type Call = fn(&mut Host, u32) -> Reply;
    let calls: [(&'static str, Call); 4] = [
        ("proxy_set_tick_period_milliseconds", Host::set_tick_period),
        ("proxy_close_stream", Host::close_stream),
        ("proxy_continue_stream", Host::continue_stream),
        ("proxy_set_effective_context", Host::set_effective_context),
    ];
    for (name, call) in calls {
        linker.func_wrap(
            "env",
            name,
            move |mut env: Env<'_>, number: u32| -> Result<u32> {
                act(&mut env, name, |host| call(host, number))
            },
        )?;
    }
    Ok(())
}

fn link_basics(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_log",
        |mut env: Env<'_>, level: u32, at: u32, size: u32| -> Result<u32> {
            let message = read(&mut env, at, size)?;
            act(&mut env, "proxy_log", |host| {
                host.log(level, &message);
                Ok(())
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_current_time_nanoseconds",
        |mut env: Env<'_>, at: u32| -> Result<u32> {
            answer(
                &mut env,
                "proxy_get_current_time_nanoseconds",
                |host| Ok(host.time() * 1_000_000),
                |env, now| write(env, at, &now.to_le_bytes()),
            )
        },
    )?;
    linker.func_wrap("env", "proxy_done", |mut env: Env<'_>| -> Result<u32> {
        act(&mut env, "proxy_done", |_| Ok(()))
    })?;
    Ok(())
}

fn link_headers(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_header_map_pairs",
        |mut env: Env<'_>, map: u32, at: u32, size: u32| -> Result<u32> {
            answer(
                &mut env,
                "proxy_get_header_map_pairs",
                |host| host.headers(map),
                |env, headers| give(env, &headers.serialize(), at, size),
            )
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
            answer(
                &mut env,
                "proxy_get_header_map_value",
                |host| {
                    let headers = host.headers(map)?;
                    let value = headers.get(&name).map(<[u8]>::to_vec);
                    value.ok_or(Ill::Status(NOT_FOUND))
                },
                |env, value| give(env, &value, at, size),
            )
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
                act(&mut env, call, |host| change(host, map, &name, &value))
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "proxy_remove_header_map_value",
        |mut env: Env<'_>, map: u32, name: u32, name_size: u32| -> Result<u32> {
            let name = text(&mut env, name, name_size)?;
            act(&mut env, "proxy_remove_header_map_value", |host| {
                host.remove_header(map, &name)
            })
        },
    )?;
    Ok(())
}

fn link_data(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_get_buffer_bytes",
        |mut env: Env<'_>, buffer: u32, start: u32, most: u32, at: u32, size: u32| -> Result<u32> {
            answer(
                &mut env,
                "proxy_get_buffer_bytes",
                |host| host.buffer(buffer),
                |env, bytes| {
                    let start = (start as usize).min(bytes.len());
                    let end = start.saturating_add(most as usize).min(bytes.len());
                    give(env, &bytes[start..end], at, size)
                },
            )
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
            act(&mut env, "proxy_set_buffer_bytes", |host| {
                host.set_buffer(buffer, start as usize, length as usize, &bytes)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_shared_data",
        |mut env: Env<'_>, key: u32, key_size: u32, at: u32, size: u32, cas: u32| -> Result<u32> {
            let key = read(&mut env, key, key_size)?;
            answer(
                &mut env,
                "proxy_get_shared_data",
                |host| host.shared_get(&key),
                |env, (value, number)| {
                    give(env, &value, at, size)?;
                    write(env, cas, &number.to_le_bytes())
                },
            )
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_shared_data",
        |mut env: Env<'_>, key: u32, key_size: u32, at: u32, size: u32, cas: u32| -> Result<u32> {
            let (key, value) = (read(&mut env, key, key_size)?, read(&mut env, at, size)?);
            act(&mut env, "proxy_set_shared_data", |host| {
                host.shared_set(&key, &value, cas)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_property",
        |mut env: Env<'_>, path: u32, path_size: u32, at: u32, size: u32| -> Result<u32> {
            let path = read(&mut env, path, path_size)?;
            answer(
                &mut env,
                "proxy_get_property",
                |host| host.property(&path),
                |env, value| give(env, &value, at, size),
            )
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_set_property",
        |mut env: Env<'_>, path: u32, path_size: u32, at: u32, size: u32| -> Result<u32> {
            let (path, value) = (read(&mut env, path, path_size)?, read(&mut env, at, size)?);
            act(&mut env, "proxy_set_property", |host| {
                host.set_property(&path, &value)
            })
        },
    )?;
    Ok(())
}

fn link_flow(linker: &mut Linker<Data>) -> Result<()> {
    linker.func_wrap(
        "env",
        "proxy_call_foreign_function",
        |mut env: Env<'_>,
         name: u32,
         name_size: u32,
         arguments: u32,
         arguments_size: u32,
         _: u32,
         _: u32|
         -> Result<u32> {
            let name = read(&mut env, name, name_size)?;
            let arguments = read(&mut env, arguments, arguments_size)?;
            act(&mut env, "proxy_call_foreign_function", |host| {
                host.foreign_function(&name, &arguments)
            })
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
            act(&mut env, "proxy_send_local_response", |host| {
                host.local_response(code, headers_of(&headers)?, &body, grpc_status)
            })
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
            answer(
                &mut env,
                "proxy_http_call",
                |host| host.http_call(&upstream, headers_of(&headers)?, &body, timeout),
                |env, number| write(env, token, &number.to_le_bytes()),
            )
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
            answer(
                &mut env,
                "proxy_define_metric",
                |host| host.define_metric(kind, &name),
                |env, number| write(env, id, &number.to_le_bytes()),
            )
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_increment_metric",
        |mut env: Env<'_>, id: u32, by: i64| -> Result<u32> {
            act(&mut env, "proxy_increment_metric", |host| {
                host.increment_metric(id, by)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_record_metric",
        |mut env: Env<'_>, id: u32, to: u64| -> Result<u32> {
            act(&mut env, "proxy_record_metric", |host| {
                host.record_metric(id, to)
            })
        },
    )?;
    linker.func_wrap(
        "env",
        "proxy_get_metric",
        |mut env: Env<'_>, id: u32, at: u32| -> Result<u32> {
            answer(
                &mut env,
                "proxy_get_metric",
                |host| host.metric(id),
                |env, value| write(env, at, &value.to_le_bytes()),
            )
        },
    )?;
    Ok(())
}
