//! Somebody who changes the list of members while everything else goes wrong: learners, voters, removals, members whose
//! machine is gone for good, members that come back with an empty disk.
//!
//! Always holds: one request at a time, and the list is read anew after each, because an answer may be lost; voters are
//! taken away only while no other machine lacks anything, so that what is acknowledged keeps its copies. At the end the
//! list is what runs, and who was removed must have ended by itself. Not here: machines (run/machines.rs).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::cluster_client::ClusterClient;

use crate::member::{CLIENT_PORT, PEER_PORTS, host, peer_url, peer_url_at};
use crate::network::channel;
use crate::roster::Order;
use crate::workload::Shared;

/// What an operator of one run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes {
    pub seed: u64,
    pub pause_ms_max: u64,
    pub voters_min: usize,
    pub voters_max: usize,
    /// Machines that may join, one after the other.
    pub spares: usize,
    /// Only the URLs at which members are reached change, to one or both of two ports.
    pub moves: bool,
}

const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// After the faults: until the list is what runs.
const TIDY_TIME_MAX: Duration = Duration::from_secs(25);
/// After the faults: until who was removed has noticed.
const REMOVED_TIME_MAX: Duration = Duration::from_secs(20);
const TIDY_PAUSE: Duration = Duration::from_millis(200);

struct Operator {
    changes: Changes,
    shared: Arc<Shared>,
    random: Random,
    /// The machine that a next new member gets.
    next: usize,
    machines: usize,
    /// Machines that were seen in the list.
    known: BTreeSet<usize>,
    started: BTreeSet<usize>,
}

/// One entry of the list.
#[derive(Clone, Debug)]
struct Listed {
    id: u64,
    number: usize,
    is_learner: bool,
    /// It has run and said so.
    is_published: bool,
}

pub(crate) async fn operator(changes: Changes, members: usize, shared: Arc<Shared>) {
    let machines = members + changes.spares;
    let initial: BTreeSet<usize> = (0..members).collect();
    let mut operator = Operator {
        changes,
        random: Random(changes.seed),
        next: members,
        machines,
        known: initial.clone(),
        started: initial,
        shared: Arc::clone(&shared),
    };
    while !shared.roster.stopping() {
        let pause_ms = 100 + operator.random.below(changes.pause_ms_max);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        if let Some(list) = operator.list().await {
            operator.change(&list).await;
        }
    }
    operator.tidy().await;
    shared.roster.set_idle();
}

impl Operator {
    fn draw<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let count = u64::try_from(from.len()).unwrap_or(0).max(1);
        from.get(usize::try_from(self.random.below(count)).unwrap_or(0)).cloned()
    }

    fn say(&self, text: &str) {
        self.shared.trace.line(&format!("operator: {text}"));
    }

    /// Some member that should answer.
    fn client(&mut self) -> ClusterClient<tonic::transport::Channel> {
        let live = self.shared.roster.live();
        let number = self.draw(&live).unwrap_or(0);
        ClusterClient::new(channel(&host(number), CLIENT_PORT))
    }

    /// The list as it is now, and what follows from it for clients and machines.
    async fn list(&mut self) -> Option<Vec<Listed>> {
        let mut client = self.client();
        let asking = client.member_list(pb::MemberListRequest { linearizable: true });
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, asking).await.ok()?.ok()?.into_inner();
        let list: Vec<Listed> = answer.members.iter().filter_map(listed).collect();
        let roster = &self.shared.roster;
        let numbers: BTreeSet<usize> = list.iter().map(|member| member.number).collect();
        for number in self.known.difference(&numbers).filter(|number| !roster.is_removed(**number)) {
            self.say(&format!("machine {number} is no member any more"));
            roster.note_removed(*number);
        }
        self.known.extend(numbers.iter().copied());
        let serves = |member: &&Listed| !member.is_learner && member.is_published;
        let live = list.iter().filter(serves).map(|member| member.number);
        roster.set_live(live.filter(|number| !roster.is_destroyed(*number)).collect());
        for number in numbers {
            if self.started.insert(number) {
                self.next = self.next.max(number + 1);
                roster.order(Order::Start { number, others: roster.live() });
            }
        }
        Some(list)
    }

    async fn change(&mut self, list: &[Listed]) {
        let roster = Arc::clone(&self.shared);
        let roster = &roster.roster;
        let voters: Vec<Listed> = list.iter().filter(|member| !member.is_learner).cloned().collect();
        let learners: Vec<Listed> = list.iter().filter(|member| member.is_learner).cloned().collect();
        if let Some(dead) = list.iter().find(|member| roster.is_destroyed(member.number)) {
            return self.remove(dead).await;
        }
        if self.changes.moves {
            let Some(member) = self.draw(list) else { return };
            return self.move_urls(&member).await;
        }
        let has_spare = self.next < self.machines;
        if let Some(number) = self.draw(&roster.lingering())
            && self.random.below(3) == 0
        {
            roster.order(Order::Retire { number });
        }
        match self.random.below(100) {
            0..40 if !learners.is_empty() => {
                let Some(learner) = self.draw(&learners) else { return };
                self.promote(&learner).await;
            }
            40..45 if !learners.is_empty() => {
                let Some(learner) = self.draw(&learners) else { return };
                self.remove(&learner).await;
            }
            0..25 if has_spare && learners.is_empty() => self.add(true).await,
            25..45 if has_spare && voters.len() < self.changes.voters_max => self.add(false).await,
            45..70 if voters.len() > self.changes.voters_min && !roster.is_anything_lost() => {
                let Some(voter) = self.draw(&voters) else { return };
                self.remove(&voter).await;
            }
            70..80 if has_spare => {
                if let Some(voter) = self.draw(&voters)
                    && roster.may_lose(voter.number)
                {
                    roster.order(Order::Destroy { number: voter.number });
                }
            }
            80..90 => {
                if let Some(voter) = self.draw(&voters)
                    && voter.is_published
                    && roster.may_lose(voter.number)
                {
                    roster.order(Order::Empty { number: voter.number, others: roster.live() });
                }
            }
            _ if has_spare && voters.len() < self.changes.voters_min => self.add(false).await,
            _ => {}
        }
    }

    async fn add(&mut self, is_learner: bool) {
        let number = self.next;
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer_url(number)], is_learner };
        let mut client = self.client();
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.member_add(request)).await;
        self.told(&format!("add machine {number}, learner: {is_learner}"), answer);
    }

    async fn move_urls(&mut self, member: &Listed) {
        let ports: &[u16] =
            [&PEER_PORTS[..1], &PEER_PORTS[1..], &PEER_PORTS[..]][self.random.below(3) as usize];
        let urls = ports.iter().map(|port| peer_url_at(member.number, *port)).collect();
        let request = pb::MemberUpdateRequest { id: member.id, peer_ur_ls: urls };
        let mut client = self.client();
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.member_update(request)).await;
        self.told(&format!("machine {} is reached at {ports:?}", member.number), answer);
    }

    async fn promote(&mut self, learner: &Listed) {
        let request = pb::MemberPromoteRequest { id: learner.id };
        let mut client = self.client();
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.member_promote(request)).await;
        self.told(&format!("promote machine {}", learner.number), answer);
    }

    async fn remove(&mut self, member: &Listed) {
        let request = pb::MemberRemoveRequest { id: member.id };
        let mut client = self.client();
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.member_remove(request)).await;
        self.told(&format!("remove machine {}", member.number), answer);
    }

    fn told<T>(&self, what: &str, answer: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>) {
        let told = match answer {
            Ok(Ok(_)) => {
                self.shared.member_changed();
                "done".to_owned()
            }
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => "no answer in time".to_owned(),
        };
        self.say(&format!("{what}: {told}"));
    }

    /// Until every member runs and nothing else does. What is left undone makes the run's own checks fail.
    async fn tidy(&mut self) {
        let began = Instant::now();
        let shared = Arc::clone(&self.shared);
        let roster = &shared.roster;
        while began.elapsed() < TIDY_TIME_MAX {
            tokio::time::sleep(TIDY_PAUSE).await;
            let Some(list) = self.list().await else { continue };
            if let Some(dead) = list.iter().find(|member| roster.is_destroyed(member.number)) {
                self.remove(dead).await;
                continue;
            }
            let lingering = roster.lingering();
            if lingering.is_empty() && list.iter().all(|member| member.is_published) {
                return;
            }
            if began.elapsed() > REMOVED_TIME_MAX && !lingering.is_empty() {
                return shared.find(format!(
                    "machines {lingering:?} are no members any more and still run {} s after everything was healed",
                    REMOVED_TIME_MAX.as_secs()
                ));
            }
        }
        self.say("not tidy");
    }
}

fn listed(member: &pb::Member) -> Option<Listed> {
    let is_at = |number: &usize| {
        PEER_PORTS.iter().any(|port| member.peer_ur_ls.contains(&peer_url_at(*number, *port)))
    };
    let number = (0..64).find(is_at)?;
    Some(Listed {
        id: member.id,
        number,
        is_learner: member.is_learner,
        is_published: !member.client_ur_ls.is_empty(),
    })
}
