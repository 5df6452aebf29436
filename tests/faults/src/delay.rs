//! Packets that leave a member are held back in user space and go on later, in their order or past each other.
//!
//! The kernel hands them over through a queue (NFQUEUE) that a process in the member's network namespace reads: this
//! program again, as `hold-back`, because a queue belongs to the namespace in which it is opened.
//! Invariants: no packet is lost, only late; when the process ends, whatever way, the kernel lets packets pass by
//! (`--queue-bypass`); the process ends with its standard input, so none is left behind by a harness that was killed;
//! what is counted are packets that were late and packets that a later one of the same connection has overtaken.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::network::Network;

/// Of the member's namespace; nothing else uses queues there.
const QUEUE: u16 = 1;
const WAITING_MAX: u32 = 16_384;
/// Addresses and ports of a packet are within this.
const HEAD_BYTES: u16 = 128;
/// How late a packet may be beyond what it should.
const TICK: Duration = Duration::from_millis(1);

/// How late packets go on: each by `least_ms` and a part of `jitter_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Manner {
    #[arg(long)]
    pub least_ms: u64,
    #[arg(long)]
    pub jitter_ms: u64,
    /// A packet never overtakes one that was sent before it.
    #[arg(long)]
    pub in_order: bool,
    #[arg(long)]
    pub seed: u64,
}

/// What was done to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub held: u64,
    pub overtaken: u64,
}

/// Whether this machine has such queues. To be called inside the harness's own network namespace.
pub fn is_possible() -> bool {
    nfq::Queue::open().and_then(|mut queue| queue.bind(QUEUE)).is_ok()
}

/// Those that wait, and when each goes on.
struct Line<T> {
    manner: Manner,
    random: StdRng,
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: BTreeMap<u64, (Flow, T)>,
    /// Number of the packet that came last, from 1.
    last: u64,
    latest_due: Option<Instant>,
    /// Per connection the greatest number that has gone on.
    gone: BTreeMap<Flow, u64>,
    counts: Counts,
}

/// The ends of a packet's connection.
type Flow = [u8; 12];

impl<T> Line<T> {
    fn new(manner: Manner) -> Line<T> {
        Line {
            manner,
            random: StdRng::seed_from_u64(manner.seed),
            waiting: BinaryHeap::new(),
            packets: BTreeMap::new(),
            last: 0,
            latest_due: None,
            gone: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    fn take(&mut self, now: Instant, flow: Flow, packet: T) {
        let late_us =
            1_000 * self.manner.least_ms + self.random.random_range(0..=1_000 * self.manner.jitter_ms);
        let mut due = now + Duration::from_micros(late_us);
        if self.manner.in_order {
            due = self.latest_due.map_or(due, |latest| latest.max(due));
            self.latest_due = Some(due);
        }
        self.last += 1;
        self.waiting.push(Reverse((due, self.last)));
        self.packets.insert(self.last, (flow, packet));
    }

    /// The next packet whose time has come.
    fn next(&mut self, now: Instant) -> Option<T> {
        let Reverse((due, number)) = *self.waiting.peek()?;
        if due > now {
            return None;
        }
        self.waiting.pop();
        let (flow, packet) = self.packets.remove(&number)?;
        let gone = self.gone.entry(flow).or_default();
        self.counts.held += 1;
        self.counts.overtaken += u64::from(number < *gone);
        *gone = number.max(*gone);
        Some(packet)
    }

    /// All that are left, in the order in which they came.
    fn rest(&mut self) -> impl Iterator<Item = T> {
        self.waiting.clear();
        std::mem::take(&mut self.packets).into_values().map(|(_, packet)| packet)
    }
}

/// Addresses and ports; of what has no ports, the addresses and whatever stands there.
fn flow(packet: &[u8]) -> Flow {
    let mut flow = Flow::default();
    let header_bytes = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    if let (Some(addresses), Some(ports)) = (packet.get(12..20), packet.get(header_bytes..header_bytes + 4)) {
        flow[..8].copy_from_slice(addresses);
        flow[8..].copy_from_slice(ports);
    }
    flow
}

/// `hold-back`: says `ready`, holds packets back until standard input ends, lets all go, and says what it did.
pub fn hold_back(manner: Manner, mut say: impl FnMut(&str)) -> Result<()> {
    let mut queue = nfq::Queue::open().context("cannot open a packet queue")?;
    queue.bind(QUEUE).context("cannot bind a packet queue")?;
    queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
    queue.set_fail_open(QUEUE, true)?;
    queue.set_copy_range(QUEUE, HEAD_BYTES)?;
    queue.set_nonblocking(true);
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    std::thread::spawn(move || {
        let _read = std::io::stdin().read_to_end(&mut Vec::new()); // whatever ends it, it has ended
        ends.store(true, Ordering::Relaxed);
    });
    say("ready");
    let mut line = Line::new(manner);
    loop {
        let is_over = over.load(Ordering::Relaxed);
        receive(&mut queue, &mut line)?;
        while let Some(packet) = line.next(Instant::now()) {
            accept(&mut queue, packet)?;
        }
        if is_over {
            // The rule is gone, and what it had handed over has just been received.
            for packet in line.rest() {
                accept(&mut queue, packet)?;
            }
            say(&serde_json::to_string(&line.counts)?);
            return Ok(());
        }
        std::thread::sleep(TICK);
    }
}

fn receive(queue: &mut nfq::Queue, line: &mut Line<nfq::Message>) -> Result<()> {
    loop {
        match queue.recv() {
            Ok(packet) => line.take(Instant::now(), flow(packet.get_payload()), packet),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the packet queue"),
        }
    }
}

fn accept(queue: &mut nfq::Queue, mut packet: nfq::Message) -> Result<()> {
    packet.set_verdict(nfq::Verdict::Accept);
    queue.verdict(packet).context("cannot let a packet go on")
}

/// The process that holds a member's packets back; killed with this.
#[derive(Debug)]
pub struct Delayer {
    network: Network,
    member: usize,
    process: Child,
    // Closed: it shall end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Delayer {
    pub fn start(network: &Network, member: usize, manner: Manner) -> Result<Delayer> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let launcher = network.launcher(member);
        let mut command = Command::new(&launcher[0]);
        command.args(&launcher[1..]).arg(program).arg("hold-back");
        command.args(["--least-ms", &manner.least_ms.to_string()]);
        command.args(["--jitter-ms", &manner.jitter_ms.to_string()]);
        command.args(["--seed", &manner.seed.to_string()]);
        command.args(manner.in_order.then_some("--in-order"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(process.stdout.take().context("no standard output")?);
        let input = process.stdin.take();
        let mut delayer = Delayer { network: network.clone(), member, process, input, output };
        ensure!(delayer.hear()? == "ready", "the packets of member {member} cannot be held back");
        network.queue_packets(member, QUEUE)?;
        Ok(delayer)
    }

    fn hear(&mut self) -> Result<String> {
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        Ok(said.trim_end().to_owned())
    }

    /// Lets all packets go on and ends.
    pub fn finish(mut self) -> Result<Counts> {
        self.network.unqueue_packets(self.member, QUEUE)?;
        self.input = None;
        let said = self.hear()?;
        serde_json::from_str(&said)
            .with_context(|| format!("who held back the packets of member {} said {said:?}", self.member))
    }
}

impl Drop for Delayer {
    fn drop(&mut self) {
        self.input = None;
        let _killed = self.process.kill(); // has ended by itself otherwise
        let _status = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counts, Line, Manner, flow};

    const MANNER: Manner = Manner { least_ms: 10, jitter_ms: 50, in_order: false, seed: 1 };

    /// A hundred packets of two connections, one each millisecond, and what comes out within the time.
    fn passed(manner: Manner) -> (Vec<u64>, Counts) {
        let begin = Instant::now();
        let mut line = Line::new(manner);
        let mut passed = Vec::new();
        for number in 0..200 {
            let now = begin + Duration::from_millis(number);
            if number < 100 {
                line.take(now, [u8::try_from(number % 2).unwrap(); 12], number);
            }
            while let Some(packet) = line.next(now) {
                assert!(number >= packet + manner.least_ms, "{packet} was not held back");
                passed.push(packet);
            }
        }
        assert_eq!(line.rest().count(), 0);
        (passed, line.counts)
    }

    #[test]
    fn all_packets_pass_late_and_past_each_other_and_those_overtaken_are_counted() {
        let (mut passed, counts) = passed(MANNER);
        assert_eq!(counts.held, 100);
        let overtaken = |at: usize| {
            passed[..at].iter().any(|before| before % 2 == passed[at] % 2 && *before > passed[at])
        };
        let expected = (0..passed.len()).filter(|at| overtaken(*at)).count() as u64;
        assert!(expected > 20 && counts.overtaken == expected, "{counts:?}, should be {expected}");
        passed.sort_unstable();
        assert_eq!(passed, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn in_order_none_is_overtaken() {
        let (passed, counts) = passed(Manner { in_order: true, ..MANNER });
        assert_eq!(passed, (0..100).collect::<Vec<_>>());
        assert_eq!(counts, Counts { held: 100, overtaken: 0 });
    }

    #[test]
    fn what_still_waits_at_the_end_goes_on_in_order() {
        let mut line = Line::new(MANNER);
        (0..10).for_each(|number| line.take(Instant::now(), [0; 12], number));
        assert_eq!(line.rest().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_connection_is_its_addresses_and_ports() {
        let mut packet = vec![0x46; 40];
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[24..28].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(flow(&packet), [10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4]);
        assert_eq!(flow(&packet[..26]), [0; 12], "a part of a packet");
        assert_eq!(flow(&[]), [0; 12]);
    }
}
