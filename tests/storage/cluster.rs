//! Three nodes of MinIO with two drives each, over which every object is spread so that any one node may be away. Each is a
//! machine of its own as far as the network knows: it has its own stack, address and cable.
//!
//! The network and the drives are in namespaces of the test's process, which runs itself again in them. So nothing of it is
//! seen outside, and all of it goes when the process does, however that ends.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::engines::{minio, spawn};
use crate::harness::Connection;

/// How many nodes.
pub const NODES: usize = 3;

/// What says that this process runs in namespaces of its own.
const INSIDE: &str = "ATTACHD_TEST_INSIDE";

const PORT: u16 = 9000;

/// How long a node may take to be back with all of its drives.
const BACK: Duration = Duration::from_secs(120);

/// Runs a test of this program once more, in a network of its own, and says whether this is that run.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--propagation", "private", "--"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    // What it says last is why it failed, which is what is looked for where its end alone is kept.
    command.env("RUST_BACKTRACE", "0");
    let ended = command.output().expect("util-linux is installed");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    let passed = ended.status.success() && out.contains("test result: ok. 1 passed");
    assert!(passed, "it takes root to make a network\n{out}{err}");
    out.lines().filter(|line| line.starts_with("cluster: ")).for_each(|line| println!("{line}"));
    false
}

/// The nodes.
pub struct Cluster {
    /// What the drives are mounted in.
    folder: TempDir,
    processes: [Option<Child>; NODES],
}

fn ip(line: &str) {
    let ended =
        Command::new("ip").args(line.split(' ')).output().expect("tests/storage/setup.sh has installed iproute2");
    assert!(ended.status.success(), "ip {line}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn memory_at(path: &str, size: &str) {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs", path]).status();
    assert!(mounted.expect("mount can be run").success(), "{path} can be mounted");
}

/// The address of a node, by its number from 0.
fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

/// Where a node is spoken to.
pub fn endpoint(node: usize) -> String {
    format!("http://{}:{PORT}", address(node))
}

impl Cluster {
    /// Starts all nodes, and waits until they are one cluster.
    pub fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        // The names of network namespaces are files there.
        memory_at("/run", "size=1m");
        ip("link set lo up");
        ip("link add between type bridge");
        ip("address add 10.77.0.254/24 dev between");
        ip("link set between up");
        for node in 0..NODES {
            ip(&format!("netns add node-{node}"));
            ip(&format!("link add cable-{node} type veth peer name eth0 netns node-{node}"));
            ip(&format!("link set cable-{node} master between up"));
            ip(&format!("-n node-{node} address add {}/24 dev eth0", address(node)));
            ip(&format!("-n node-{node} link set eth0 up"));
            ip(&format!("-n node-{node} link set lo up"));
            for drive in ["one", "two"] {
                let drive = folder.path().join(format!("{node}/{drive}"));
                std::fs::create_dir_all(&drive).unwrap();
                memory_at(drive.to_str().unwrap(), "size=2g");
            }
        }
        let mut cluster = Cluster { folder, processes: [const { None }; NODES] };
        (0..NODES).for_each(|node| cluster.begin(node));
        cluster.wait_until_whole();
        cluster
    }

    /// Starts a node, on the drives that it had.
    pub fn begin(&mut self, node: usize) {
        let drives: Vec<String> = (0..NODES)
            .flat_map(|node| ["one", "two"].map(|drive| (node, drive)))
            .map(|(node, drive)| format!("{}{}/{node}/{drive}", endpoint(node), self.folder.path().display()))
            .collect();
        let server = minio(&drives, &address(node), PORT);
        let mut command = Command::new("ip");
        // It becomes the server, under the same process id.
        command.args(["netns", "exec", &format!("node-{node}")]).arg(server.get_program()).args(server.get_args());
        command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.processes[node] = Some(spawn(&mut command));
    }

    /// Ends a node by SIGKILL.
    pub fn kill(&mut self, node: usize) {
        let mut process = self.processes[node].take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Pulls a node's cable: nobody is told that it is gone.
    pub fn unplug(&self, node: usize) {
        ip(&format!("link set cable-{node} down"));
    }

    /// Puts it back in.
    pub fn plug(&self, node: usize) {
        ip(&format!("link set cable-{node} up"));
    }

    /// Waits until every node says that any one of them may go.
    pub fn wait_until_whole(&self) {
        let deadline = Instant::now() + BACK;
        let mut whole = [false; NODES];
        while whole.contains(&false) {
            assert!(Instant::now() < deadline, "whole, as the nodes see it: {whole:?}");
            std::thread::sleep(Duration::from_millis(100));
            whole = std::array::from_fn(|node| {
                let address = format!("{}:{PORT}", address(node)).parse().unwrap();
                let Ok(mut connection) = Connection::try_open(address) else { return false };
                connection.head("GET", "/minio/health/cluster?maintenance=true", &[("Connection", "close")]);
                connection.reply().is_some_and(|reply| reply.status == 200)
            });
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
