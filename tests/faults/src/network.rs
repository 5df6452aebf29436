//! Each member in a network namespace of its own, all on one bridge, and the rules that disturb the traffic between
//! them.
//!
//! Invariants: everything lives in namespaces of the harness's own process tree (isolation.rs), so nothing outside is
//! touched and all of it goes with that tree, however it ends; the harness itself, that is the clients, is on the
//! bridge; each disturbance has chains of its own, whose counters say what it did.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end; its standard output. An error says what it wrote.
pub fn sh(command: &[&str]) -> Result<String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {} {errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The namespace whose one process hears nobody but the harness, and that process's address.
const ALONE: &str = "alone";
pub const ALONE_ADDRESS: &str = "10.98.0.2";

/// Members that may come for a while, behind those that a cluster begins with. No rule is about them.
pub const SPARES: usize = 2;

#[derive(Clone, Debug)]
pub struct Network {
    members: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Outgoing,
    Incoming,
}

/// The rules of one disturbance; they stay until [`Network::remove`].
#[derive(Debug)]
pub struct Rules {
    chain: String,
    members: Vec<usize>,
}

fn space(member: usize) -> String {
    format!("m{}", member + 1)
}

pub fn address(member: usize) -> String {
    format!("10.99.0.{}", member + 1)
}

fn queue_rule<'a>(action: &'a str, queue: &'a str) -> Vec<&'a str> {
    let rule = ["POSTROUTING", "-o", "eth0", "-j", "NFQUEUE", "--queue-num", queue, "--queue-bypass"];
    [&["iptables", "-w", "-t", "mangle", action], &rule[..]].concat()
}

fn copy_rule<'a>(action: &'a str, peer: &'a str, matching: &[&'a str]) -> Vec<&'a str> {
    let rule = ["iptables", "-w", "-t", "mangle", action, "OUTPUT", "-o", "eth0", "-d", peer];
    [&rule[..], matching, &["-j", "TEE", "--gateway", peer]].concat()
}

impl Network {
    /// To be called inside the harness's own network and mount namespace.
    pub fn build(members: usize) -> Result<Network> {
        std::fs::create_dir_all("/run/netns").context("cannot make the directory of namespaces")?;
        sh(&["mount", "-t", "tmpfs", "none", "/run/netns"])?;
        sh(&["ip", "link", "set", "lo", "up"])?;
        sh(&["ip", "link", "add", "br0", "type", "bridge"])?;
        sh(&["ip", "addr", "add", "10.99.0.254/24", "dev", "br0"])?;
        sh(&["ip", "link", "set", "br0", "up"])?;
        sh(&["ip", "netns", "add", ALONE])?;
        sh(&["ip", "link", "add", "valone", "type", "veth", "peer", "name", "eth0", "netns", ALONE])?;
        sh(&["ip", "addr", "add", "10.98.0.1/30", "dev", "valone"])?;
        sh(&["ip", "link", "set", "valone", "up"])?;
        let own = format!("{ALONE_ADDRESS}/30");
        for command in [
            &["ip", "addr", "add", &own, "dev", "eth0"][..],
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "link", "set", "lo", "up"],
        ] {
            sh(&[&["ip", "netns", "exec", ALONE], command].concat())?;
        }
        for member in 0..members {
            // Nobody listens at the members' addresses there, so whoever asks need not wait.
            let other = format!("{}/32", address(member));
            sh(&["ip", "netns", "exec", ALONE, "ip", "addr", "add", &other, "dev", "lo"])?;
        }
        let network = Network { members };
        for member in 0..members + SPARES {
            let space = space(member);
            let outer = format!("v{space}");
            sh(&["ip", "netns", "add", &space])?;
            sh(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            sh(&["ip", "link", "set", &outer, "master", "br0", "up"])?;
            let inside = format!("{}/24", address(member));
            network.inside(member, &["ip", "addr", "add", &inside, "dev", "eth0"])?;
            network.inside(member, &["ip", "link", "set", "eth0", "up"])?;
            network.inside(member, &["ip", "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// Runs what follows it as the member's.
    pub fn launcher(&self, member: usize) -> Vec<String> {
        // Unlike `ip netns exec` it makes no mount namespace, which would keep copies of the other members' disks.
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", space(member))]
    }

    /// Runs what follows it where it hears no member.
    pub fn launcher_alone(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{ALONE}")]
    }

    pub fn inside(&self, member: usize, command: &[&str]) -> Result<String> {
        let space = format!("--net=/run/netns/{}", space(member));
        sh(&[&["nsenter", &space], command].concat())
    }

    pub fn others(&self, member: usize) -> Vec<usize> {
        (0..self.members).filter(|other| *other != member).collect()
    }

    /// Chains named after `number`, empty yet, for these members.
    pub fn rules(&self, number: usize, members: &[usize]) -> Result<Rules> {
        let rules = Rules { chain: format!("F{number}"), members: members.to_vec() };
        for member in members {
            self.inside(*member, &["iptables", "-w", "-N", &rules.chain])?;
            self.inside(*member, &["iptables", "-w", "-I", "OUTPUT", "-j", &rules.chain])?;
            self.inside(*member, &["iptables", "-w", "-I", "INPUT", "-j", &rules.chain])?;
        }
        Ok(rules)
    }

    /// Drops packets between `member` and `peer` (`None`: everybody) that fit `matching`.
    pub fn drop_packets(
        &self,
        rules: &Rules,
        member: usize,
        peer: Option<usize>,
        direction: Direction,
        matching: &[&str],
    ) -> Result<()> {
        let peer = peer.map(address);
        // The member's own address tells the directions apart within the one chain.
        let own = address(member);
        let (from, to) = match direction {
            Direction::Outgoing => (Some(own), peer),
            Direction::Incoming => (peer, Some(own)),
        };
        let mut command = vec!["iptables", "-w", "-A", &rules.chain];
        if let Some(from) = &from {
            command.extend(["-s", from]);
        }
        if let Some(to) = &to {
            command.extend(["-d", to]);
        }
        command.extend(matching);
        command.extend(["-j", "DROP"]);
        self.inside(member, &command).map(drop)
    }

    /// Packets that the rules have dropped.
    pub fn dropped(&self, rules: &Rules) -> Result<u64> {
        let mut dropped = 0;
        for member in &rules.members {
            let listed = self.inside(*member, &["iptables", "-w", "-nvxL", &rules.chain])?;
            let counts = listed.lines().filter(|line| line.contains("DROP"));
            dropped +=
                counts.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(dropped)
    }

    /// Removes the rules; the packets that they dropped.
    pub fn remove(&self, rules: &Rules) -> Result<u64> {
        let dropped = self.dropped(rules)?;
        for member in &rules.members {
            self.inside(*member, &["iptables", "-w", "-D", "OUTPUT", "-j", &rules.chain])?;
            self.inside(*member, &["iptables", "-w", "-D", "INPUT", "-j", &rules.chain])?;
            self.inside(*member, &["iptables", "-w", "-F", &rules.chain])?;
            self.inside(*member, &["iptables", "-w", "-X", &rules.chain])?;
        }
        Ok(dropped)
    }

    /// Hands what leaves the member to whoever reads this queue. Behind the rules that drop packets, which go on to be
    /// met.
    pub fn queue_packets(&self, member: usize, queue: u16) -> Result<()> {
        self.inside(member, &queue_rule("-A", &queue.to_string())).map(drop)
    }

    pub fn unqueue_packets(&self, member: usize, queue: u16) -> Result<()> {
        self.inside(member, &queue_rule("-D", &queue.to_string())).map(drop)
    }

    /// Sends packets from `member` to `peer` that fit `matching` twice.
    pub fn copy_packets(&self, member: usize, peer: usize, matching: &[&str]) -> Result<()> {
        self.inside(member, &copy_rule("-A", &address(peer), matching)).map(drop)
    }

    /// Ends that; how many packets were sent twice.
    pub fn uncopy_packets(&self, member: usize, peer: usize, matching: &[&str]) -> Result<u64> {
        let listed = self.inside(member, &["iptables", "-w", "-t", "mangle", "-nvxL", "OUTPUT"])?;
        self.inside(member, &copy_rule("-D", &address(peer), matching))?;
        let of_peer = format!("TEE gw:{}", address(peer));
        let count = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
        Ok(listed.lines().filter(|line| line.ends_with(&of_peer)).filter_map(count).sum())
    }

    pub fn slow_link(&self, member: usize) -> Result<()> {
        let filter = ["rate", "100kbit", "burst", "4kbit", "latency", "400ms"];
        self.inside(
            member,
            &[&["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf"], &filter[..]].concat(),
        )
        .map(drop)
    }

    /// Ends the slow link; how often a packet had to wait or was dropped.
    pub fn fast_link(&self, member: usize) -> Result<u64> {
        let said = self.inside(member, &["tc", "-s", "qdisc", "show", "dev", "eth0"])?;
        self.inside(member, &["tc", "qdisc", "del", "dev", "eth0", "root"])?;
        let mut words = said.split_whitespace();
        let waited = words.find(|word| *word == "overlimits").and_then(|_| words.next());
        Ok(waited.and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// Kills the member's established connections to other members; how many.
    pub fn reset(&self, member: usize) -> Result<u64> {
        let mut killed = 0;
        for other in self.others(member) {
            let said =
                self.inside(member, &["ss", "-HKt", "state", "established", "dst", &address(other)])?;
            killed += said.lines().filter(|line| line.contains("10.99.0.")).count() as u64;
        }
        Ok(killed)
    }
}
