//! One member, and commands of our client that run beside each other.

use std::fs::File;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use harness::etcd::EtcdCluster;

/// Far longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Rig {
    pub(crate) cluster: EtcdCluster,
    /// What every command is given first.
    pub(crate) options: Vec<String>,
    started: usize,
}

/// A command that runs.
pub(crate) struct Running {
    line: String,
    process: Child,
    input: Option<ChildStdin>,
    output: std::path::PathBuf,
}

impl Rig {
    /// One member that answers.
    pub(crate) fn start(flags: &[&str]) -> Rig {
        let cluster = EtcdCluster::start(1, None, None, flags).unwrap();
        let rig = Rig { cluster, options: Vec::new(), started: 0 };
        rig.wait_until_healthy();
        rig
    }

    /// The same with the user root, whose password is `pass` and who all commands are from.
    pub(crate) fn with_users(flags: &[&str]) -> Rig {
        let mut rig = Rig::start(&[flags, &["--bcrypt-cost", "4"]].concat());
        for line in ["user add root:pass", "role add root", "user grant-role root root", "auth enable"] {
            rig.run(line);
        }
        rig.options = vec!["--user=root:pass".to_owned()];
        rig
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(harness::binary().unwrap());
        command.arg("ctl").arg(format!("--endpoints={}", self.cluster.client_urls[0]));
        command.args(&self.options).args(line.split_whitespace());
        command
    }

    /// Runs a command to its end, which must be a good one; gives what it printed.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.command(line).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}{complained}\n{}", self.cluster.log_ends());
        said
    }

    /// Starts a command that goes on; what it prints is collected.
    pub(crate) fn spawn(&mut self, line: &str) -> Running {
        let command = self.command(line);
        self.collect(line, command)
    }

    /// Starts a shell on a terminal of its own, where `$CTL` is our client.
    pub(crate) fn spawn_on_terminal(&mut self, shell: &str) -> Running {
        let client = self.command("");
        let words: Vec<&str> = [client.get_program()]
            .into_iter()
            .chain(client.get_args())
            .filter_map(|word| word.to_str())
            .collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--flush", "--command", shell, "/dev/null"]);
        command.env("CTL", words.join(" ")).env("SHELL", "/bin/sh");
        self.collect(shell, command)
    }

    fn collect(&mut self, line: &str, mut command: Command) -> Running {
        self.started += 1;
        let output = self.cluster.dir.path().join(format!("command-{}", self.started));
        let file = File::create(&output).unwrap();
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        Running { line: line.to_owned(), process, input, output }
    }

    fn wait_until_healthy(&self) {
        let begin = Instant::now();
        while !self.command("endpoint health").output().unwrap().status.success() {
            assert!(begin.elapsed() < PATIENCE, "not healthy:\n{}", self.cluster.log_ends());
            std::thread::sleep(PAUSE);
        }
    }

    /// `kill -9` and a new start: the member knows no token any more.
    pub(crate) fn restart(&mut self) {
        self.cluster.kill(0).unwrap();
        self.cluster.revive(0).unwrap();
        self.wait_until_healthy();
    }

    /// Repeats a command until it prints this.
    pub(crate) fn wait_until(&self, line: &str, wanted: &str) {
        let begin = Instant::now();
        loop {
            let said = self.run(line);
            if said == wanted {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{line}: {said}");
            std::thread::sleep(PAUSE);
        }
    }
}

impl Running {
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// Waits until what it printed contains this; it must not end meanwhile.
    pub(crate) fn wait_for(&mut self, wanted: &str) {
        self.wait_while(wanted, |printed| !printed.contains(wanted));
    }

    /// Waits until it has printed so many lines.
    pub(crate) fn wait_for_lines(&mut self, count: usize) {
        self.wait_while(&format!("{count} lines"), |printed| printed.lines().count() < count);
    }

    fn wait_while(&mut self, wanted: &str, lacks: impl Fn(&str) -> bool) {
        let begin = Instant::now();
        while lacks(&self.printed()) {
            let ended = self.process.try_wait().unwrap();
            let (line, printed) = (&self.line, self.printed());
            assert!(ended.is_none() || !lacks(&printed), "{line} ended ({ended:?}):\n{printed}");
            assert!(begin.elapsed() < PATIENCE, "{line} never printed {wanted:?}, but:\n{printed}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes to its standard input.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let asked = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(asked.success());
        self.wait()
    }

    /// Waits until it ends by itself, its standard input being at the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        drop(self.input.take());
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            let (line, printed) = (&self.line, self.printed());
            assert!(begin.elapsed() < PATIENCE, "{line} does not end, but printed:\n{printed}");
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already, which is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
