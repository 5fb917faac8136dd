//! What a process has used so far, as Linux tells in /proc (see proc(5)) and by its CPU-time clock.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::time::ClockId;
use nix::unistd::Pid;

/// One unit of the times in /proc/PID/stat: `USER_HZ` is 100 on every architecture that PostgreSQL is packaged for.
const TICK: Duration = Duration::from_millis(10);

/// The fields of /proc/PID/stat that are used here.
struct Stat {
    parent: i32,
    reaped_ticks: u32,
}

/// CPU time of one process, all its threads together, those that have ended included.
pub fn cpu_of(pid: i32) -> anyhow::Result<Duration> {
    let time = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)).and_then(ClockId::now);
    let time = time.with_context(|| format!("couldn't read the CPU time of process {pid}"))?;
    Ok(time.into())
}

/// CPU time of a process, of the children it has waited for, and of those that live. To be read while they live: a child
/// that ends in between is counted twice or not at all.
pub fn cpu_of_family(pid: i32) -> anyhow::Result<Duration> {
    let mut sum = cpu_of(pid)? + TICK * stat(pid)?.reaped_ticks;
    for entry in fs::read_dir("/proc").context("couldn't list /proc")? {
        let name = entry.context("couldn't list /proc")?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that has just ended has no file any more.
        if let Ok(family) = stat(child)
            && family.parent == pid
            && let Ok(time) = cpu_of(child)
        {
            sum += time;
        }
    }
    Ok(sum)
}

/// The parent of a process.
pub fn parent_of(pid: i32) -> anyhow::Result<i32> {
    Ok(stat(pid)?.parent)
}

/// The most memory that a process has had resident so far, in KiB.
pub fn peak_rss_kib(pid: i32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("couldn't read {path}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .with_context(|| format!("{path} has no VmHWM"))
}

fn stat(pid: i32) -> anyhow::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("couldn't read {path}"))?;
    // The second field is a name in parentheses that may hold anything; the third follows the last one.
    let (_, rest) = text
        .rsplit_once(')')
        .with_context(|| format!("{path} has no name"))?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse().ok());
    let (Some(parent), Some(reaped_user), Some(reaped_system)) = (field(4), field(16), field(17))
    else {
        bail!("{path} is not as proc(5) describes it");
    };
    Ok(Stat {
        parent,
        reaped_ticks: ticks(reaped_user)? + ticks(reaped_system)?,
    })
}

fn ticks(field: i32) -> anyhow::Result<u32> {
    u32::try_from(field).context("a negative time in /proc")
}
