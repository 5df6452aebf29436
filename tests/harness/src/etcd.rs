//! Members of an etcd cluster as real processes, ours or a foreign etcd with the same flags, that can be killed, started
//! again, paused and continued.
//!
//! Invariants: members listen on loopback only, on free ports that stay theirs over restarts; data lies in a temporary
//! directory that goes with the handle unless it is kept; dropping the handle ends every member that it started and
//! waits for it. Not here: when a cluster is ready (whoever speaks its protocol asks it).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Members by number, from 0; their names are `m1`, `m2`, ...
pub struct EtcdCluster {
    members: Vec<Member>,
    /// `http://127.0.0.1:PORT`, one per member; `https` when `tls` was given.
    pub client_urls: Vec<String>,
    pub dir: TempDir,
}

struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    /// Run before the program: enters the member's namespace.
    launcher: Vec<String>,
    /// Run between the launcher and the program: traces it, changes its environment.
    wrapper: Vec<String>,
    peer_url: String,
    data: PathBuf,
    log: PathBuf,
    /// Whether it ends when its standard input does.
    has_parent: bool,
    /// `None` while it is killed.
    process: Option<Child>,
}

/// Where a member lives.
pub struct Place {
    pub client_url: String,
    pub peer_url: String,
    /// A command that runs the rest of its arguments there; it must become that program, not start it as a child.
    pub launcher: Vec<String>,
}

/// What clients must speak TLS with: a server certificate, and who signs the clients' ones.
pub struct EtcdTls<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    pub client_authority: Option<&'a Path>,
}

impl EtcdCluster {
    /// Starts `size` members of one new cluster. `program`: a foreign etcd; ours if there is none.
    pub fn start(
        size: usize,
        program: Option<&Path>,
        tls: Option<&EtcdTls<'_>>,
        flags: &[&str],
    ) -> Result<EtcdCluster> {
        let dir = tempfile::tempdir().context("no temporary directory")?;
        let ports = crate::free_ports(2 * size)?;
        let (client_ports, peer_ports) = ports.split_at(size);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let place = |(client, peer): (&u16, &u16)| Place {
            client_url: format!("{scheme}://127.0.0.1:{client}"),
            peer_url: format!("http://127.0.0.1:{peer}"),
            launcher: Vec::new(),
        };
        let places: Vec<Place> = client_ports.iter().zip(peer_ports).map(place).collect();
        let mut cluster = EtcdCluster::prepare(dir, &places, program, tls, flags)?;
        for number in 0..size {
            cluster.revive(number)?;
        }
        Ok(cluster)
    }

    /// The members of one new cluster, none of them started. Member `mN` keeps its data in `dir/mN/data`; whoever
    /// gives a disk of its own to a member mounts it at `dir/mN`.
    pub fn prepare(
        dir: TempDir,
        places: &[Place],
        program: Option<&Path>,
        tls: Option<&EtcdTls<'_>>,
        flags: &[&str],
    ) -> Result<EtcdCluster> {
        let names: Vec<String> = (1..=places.len()).map(|number| format!("m{number}")).collect();
        let initial: Vec<String> =
            names.iter().zip(places).map(|(name, place)| format!("{name}={}", place.peer_url)).collect();
        let program = match program {
            Some(program) => program.to_owned(),
            None => {
                // Ours is etcd under that name, which a launcher could not pass on in another way.
                let link = dir.path().join("etcd");
                std::os::unix::fs::symlink(std::path::absolute(crate::binary()?)?, &link)?;
                link
            }
        };
        let member = |(name, place): (&String, &Place)| {
            let home = dir.path().join(name);
            std::fs::create_dir_all(&home)?;
            let data = home.join("data");
            let mut arguments = vec![
                format!("--name={name}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={}", place.client_url),
                format!("--advertise-client-urls={}", place.client_url),
                format!("--listen-peer-urls={}", place.peer_url),
                format!("--initial-advertise-peer-urls={}", place.peer_url),
                format!("--initial-cluster={}", initial.join(",")),
                "--initial-cluster-state=new".to_owned(),
                "--initial-cluster-token=tests".to_owned(),
            ];
            if let Some(tls) = tls {
                arguments.push(format!("--cert-file={}", tls.certificate.display()));
                arguments.push(format!("--key-file={}", tls.key.display()));
                if let Some(authority) = tls.client_authority {
                    arguments.push("--client-cert-auth".to_owned());
                    arguments.push(format!("--trusted-ca-file={}", authority.display()));
                }
            }
            arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
            Ok(Member {
                program: program.clone(),
                arguments,
                launcher: place.launcher.clone(),
                wrapper: Vec::new(),
                peer_url: place.peer_url.clone(),
                data,
                log: dir.path().join(format!("{name}.log")),
                has_parent: false,
                process: None,
            })
        };
        let members = names.iter().zip(places).map(member).collect::<Result<_>>()?;
        let client_urls = places.iter().map(|place| place.client_url.clone()).collect();
        Ok(EtcdCluster { members, client_urls, dir })
    }

    /// Like [`EtcdCluster::prepare`], of whole control planes as `local-cluster` runs them: each member is a store, an
    /// API server at its address of `api`, a scheduler and controllers. The CA lies in `pki`, ready made. They cannot
    /// be replaced, because they have no flag for joining.
    pub fn prepare_control_planes(
        dir: TempDir,
        places: &[Place],
        api: &[String],
        pki: &Path,
    ) -> Result<EtcdCluster> {
        let program = std::path::absolute(crate::binary()?)?;
        let authority = |url: &str| url.trim_start_matches("http://").to_owned();
        let initial: Vec<String> =
            (1..).zip(places).map(|(number, place)| format!("m{number}={}", place.peer_url)).collect();
        let mut members = Vec::new();
        for (number, (place, api)) in (1..).zip(places.iter().zip(api)) {
            let name = format!("m{number}");
            let home = dir.path().join(&name);
            std::fs::create_dir_all(&home)?;
            let arguments = vec![
                "member".to_owned(),
                format!("--name={name}"),
                format!("--dir={}", home.display()),
                format!("--pki={}", pki.display()),
                format!("--api={api}"),
                format!("--store={}", authority(&place.client_url)),
                format!("--peer={}", authority(&place.peer_url)),
                format!("--initial-cluster={}", initial.join(",")),
            ];
            members.push(Member {
                program: program.clone(),
                arguments,
                launcher: place.launcher.clone(),
                wrapper: Vec::new(),
                peer_url: place.peer_url.clone(),
                data: home.join("data"),
                log: dir.path().join(format!("{name}.log")),
                has_parent: true,
                process: None,
            });
        }
        let client_urls = places.iter().map(|place| place.client_url.clone()).collect();
        Ok(EtcdCluster { members, client_urls, dir })
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    pub fn log(&self, number: usize) -> &Path {
        &self.members[number].log
    }

    /// `kill -9`. `false` if it did not run; an error if it had ended by itself.
    pub fn kill(&mut self, number: usize) -> Result<bool> {
        self.alive(number)?;
        let Some(mut process) = self.members[number].process.take() else { return Ok(false) };
        process.kill()?;
        process.wait()?;
        Ok(true)
    }

    /// Asks the member to end; [`EtcdCluster::ended`] says when it has. `false` if it does not run.
    pub fn terminate(&self, number: usize) -> Result<bool> {
        self.signal(number, Signal::TERM)
    }

    /// The status with which a member has ended that nobody stopped; afterwards it counts as not running.
    pub fn ended(&mut self, number: usize) -> Result<Option<ExitStatus>> {
        let process = &mut self.members[number].process;
        let Some(running) = process else { return Ok(None) };
        let status = running.try_wait()?;
        if status.is_some() {
            *process = None;
        }
        Ok(status)
    }

    /// `None` while it does not run.
    pub fn process_id(&self, number: usize) -> Option<u32> {
        self.members[number].process.as_ref().map(Child::id)
    }

    pub fn data(&self, number: usize) -> &Path {
        &self.members[number].data
    }

    pub fn peer_url(&self, number: usize) -> &str {
        &self.members[number].peer_url
    }

    /// From its next start on the member is this program, which must behave as etcd whatever it is called.
    pub fn set_program(&mut self, number: usize, program: PathBuf) {
        self.members[number].program = program;
    }

    pub fn program(&self, number: usize) -> &Path {
        &self.members[number].program
    }

    /// What would start the member elsewhere, or a member like it: below `launcher`, with these flags (`--name=value`)
    /// in place of its own.
    pub fn command(&self, number: usize, launcher: Vec<String>, flags: &[String]) -> Vec<String> {
        let member = &self.members[number];
        let name = |flag: &String| flag.split('=').next().unwrap_or_default().to_owned();
        let kept =
            member.arguments.iter().filter(|own| !flags.iter().any(|flag| name(flag) == name(own))).cloned();
        let program = member.program.display().to_string();
        launcher.into_iter().chain([program]).chain(kept).chain(flags.iter().cloned()).collect()
    }

    /// From its next start on the member runs below this command, which must become it; an empty one for none.
    pub fn wrap(&mut self, number: usize, wrapper: Vec<String>) {
        self.members[number].wrapper = wrapper;
    }

    /// One more member, with the flags of the first and addresses of its own. It is not started: the cluster must be
    /// told its peer URL before.
    pub fn prepare_joining(&mut self) -> Result<usize> {
        let (number, ports) = (self.members.len(), crate::free_ports(2)?);
        let (first, name) = (&self.members[0], format!("m{}", number + 1));
        let scheme = self.client_urls[0].split(':').next().unwrap_or_default();
        let client_url = format!("{scheme}://127.0.0.1:{}", ports[0]);
        let peer_url = format!("http://127.0.0.1:{}", ports[1]);
        let home = self.dir.path().join(&name);
        std::fs::create_dir_all(&home)?;
        let data = home.join("data");
        let initial: Vec<String> =
            (1..).zip(&self.members).map(|(at, member)| format!("m{at}={}", member.peer_url)).collect();
        let own = |argument: &String| match argument.split_once('=').map_or("", |(flag, _)| flag) {
            "--name" => format!("--name={name}"),
            "--data-dir" => format!("--data-dir={}", data.display()),
            flag @ ("--listen-client-urls" | "--advertise-client-urls") => format!("{flag}={client_url}"),
            flag @ ("--listen-peer-urls" | "--initial-advertise-peer-urls") => format!("{flag}={peer_url}"),
            flag @ "--initial-cluster" => format!("{flag}={},{name}={peer_url}", initial.join(",")),
            flag @ "--initial-cluster-state" => format!("{flag}=existing"),
            _ => argument.clone(),
        };
        let member = Member {
            program: first.program.clone(),
            arguments: first.arguments.iter().map(own).collect(),
            launcher: Vec::new(),
            wrapper: Vec::new(),
            peer_url,
            data,
            log: self.dir.path().join(format!("{name}.log")),
            has_parent: false,
            process: None,
        };
        self.members.push(member);
        self.client_urls.push(client_url);
        Ok(number)
    }

    /// From its next start on the member joins a cluster that exists: it was removed, its data is gone, and it was
    /// added again.
    pub fn join_existing(&mut self, number: usize) {
        for argument in &mut self.members[number].arguments {
            if argument.starts_with("--initial-cluster-state=") {
                *argument = "--initial-cluster-state=existing".to_owned();
            }
        }
    }

    /// Starts a member again that was killed; one that runs stays as it is.
    pub fn revive(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        if member.process.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&member.log)?;
        let program = member.program.display().to_string();
        let command: Vec<&String> = member
            .launcher
            .iter()
            .chain(&member.wrapper)
            .chain([&program])
            .chain(&member.arguments)
            .collect();
        let mut process = Command::new(command[0]);
        if member.has_parent && std::env::var_os("RUST_LOG").is_none() {
            // A control plane also says what its scheduler decided, and from what state.
            process.env("RUST_LOG", "info,openraft=error,h2=error,rustls=error,scheduler=debug");
        }
        let process = process
            .args(&command[1..])
            // A pipe that nobody writes to; it ends when this process does.
            .stdin(if member.has_parent { Stdio::piped() } else { Stdio::null() })
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", member.program.display()))?;
        member.process = Some(process);
        Ok(())
    }

    /// `false` if it does not run.
    pub fn pause(&self, number: usize) -> Result<bool> {
        self.signal(number, Signal::STOP)
    }

    /// `false` if it does not run.
    pub fn resume(&self, number: usize) -> Result<bool> {
        self.signal(number, Signal::CONT)
    }

    fn signal(&self, number: usize, signal: Signal) -> Result<bool> {
        let Some(process) = &self.members[number].process else { return Ok(false) };
        kill_process(Pid::from_child(process), signal)?;
        Ok(true)
    }

    /// An error if the member has ended by itself.
    pub fn alive(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        if let Some(process) = &mut member.process
            && let Some(status) = process.try_wait()?
        {
            bail!("m{} ended by itself ({status}), see {}", number + 1, member.log.display());
        }
        Ok(())
    }

    /// The last lines that each member wrote, to be shown when a test fails.
    pub fn log_ends(&self) -> String {
        let end = |member: &Member| {
            let text = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}\n", member.log.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.members.iter().map(end).collect()
    }
}

/// A process beside the members, which ends with this.
pub struct Extra(Child);

impl Extra {
    /// Runs `command`; what it says is added to the file `log`.
    pub fn start(command: &[String], log: &Path) -> Result<Extra> {
        let log = File::options().create(true).append(true).open(log)?;
        let (program, arguments) = command.split_first().context("no command")?;
        let mut process = Command::new(program);
        process.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Extra(process.spawn().with_context(|| format!("cannot start {program}"))?))
    }

    /// `None` while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already, which is what is wanted.
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}
