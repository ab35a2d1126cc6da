//! What Linux tells of a running Envoy: its workers' time on the processor, its memory; and which core a
//! thread runs on. It knows threads and not requests.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The worker threads of an Envoy.
pub(crate) struct Workers {
    process: u32,
    threads: Vec<u32>,
}

impl Workers {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task"))
            .context("reading /proc: the bench needs Linux")?;
        let mut threads = Vec::new();
        for task in tasks {
            let name = task?.file_name();
            let thread: u32 = name.to_string_lossy().parse()?;
            let comm = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"))?;
            if comm.starts_with("wrk:worker_") {
                threads.push(thread);
            }
        }
        ensure!(
            !threads.is_empty(),
            "no thread of Envoy is called wrk:worker_N"
        );
        Ok(Self { process, threads })
    }

    /// The time that they have run so far.
    pub(crate) fn busy(&self) -> Result<Duration> {
        let mut sum = 0;
        for thread in &self.threads {
            let path = format!("/proc/{}/task/{thread}/schedstat", self.process);
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            let first = text.split_whitespace().next().unwrap_or_default();
            sum += first.parse::<u64>().with_context(|| path.clone())?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Keeps them on the first core and the calling thread on the last, so that neither takes time from
    /// the other; until the value is dropped. `None` where there is one core only.
    pub(crate) fn apart(&self) -> Result<Option<Apart>> {
        let before = sched_getaffinity(None).context("asking which cores are there")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| before.is_set(core));
        let (Some(first), Some(last)) = (cores.next(), cores.next_back()) else {
            return Ok(None);
        };
        for &thread in &self.threads {
            let thread = Pid::from_raw(i32::try_from(thread)?);
            sched_setaffinity(thread, &only(first)).context("moving a worker to its core")?;
        }
        sched_setaffinity(None, &only(last)).context("moving this thread to its core")?;
        Ok(Some(Apart { before }))
    }
}

/// The calling thread has a core without the workers.
pub(crate) struct Apart {
    before: CpuSet,
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// The memory that a process has in use, in bytes.
pub(crate) fn resident(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.context("VmRSS in /proc")?.trim().parse()?;
    Ok(kilobytes * 1024)
}

/// The machine in a line: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let processor = read("/proc/cpuinfo");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let cores = processor
        .lines()
        .filter(|l| l.starts_with("processor"))
        .count();
    let virtual_machine = if processor.contains(" hypervisor") {
        ", a virtual machine"
    } else {
        ""
    };
    format!(
        "{cores} cores of {} (family {}, model {}){virtual_machine}, {} GiB, Linux {}",
        field(&processor, "model name"),
        field(&processor, "cpu family"),
        processor
            .lines()
            .find_map(|line| line.strip_prefix("model\t\t: "))
            .unwrap_or("?"),
        (kilobytes + (1 << 19)) >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    )
}
