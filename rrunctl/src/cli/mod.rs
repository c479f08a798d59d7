//! The command line: docker's words, flags, columns and exit codes.
//!
//! Each command is a structure of its flags, which clap reads, with a `run` that does it. Only what is in here prints:
//! results on standard output, `Error: …`, warnings and questions about passwords on standard error. A reader who goes
//! away ends the command without a word, since a pipe into head(1) is no failure.

#![forbid(unsafe_code)]

mod check_config;
mod container;
mod disk;
mod filter;
mod generate;
mod human;
mod image;
mod images;
mod info;
mod inspect;
mod network;
mod progress;
mod registry;
mod table;
mod template;
mod terminal;
mod volume;

use crate::container::record::Containers;
use crate::digest::Digest;
use crate::engine::{Engine, Programs};
use crate::error::{Context as _, Error, Result};
use crate::home::Home;
use crate::progress::Event;
use crate::rootless;
use crate::settings::Settings;
use crate::store::{Store, User};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use progress::{How, Progress};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{geteuid, umask};
use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const ROOT: &str = "/var/lib/rrunctl";
const RUN: &str = "/run/rrunctl";
const CONFIG: &str = "/etc/rrunctl/daemon.json";

/// Images, containers, networks and volumes above rrun, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "rrunctl",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true
)]
#[command(
    after_help = "Flags may stand before or after what they are about. `rrunctl COMMAND --help` has examples."
)]
struct Cli<C: Subcommand> {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: C,
}

/// Which engine it is about.
#[derive(Debug, Args)]
struct Place {
    /// Where images, containers and volumes are kept [default: $RRUNCTL_ROOT or /var/lib/rrunctl; for users other than
    /// root ~/.local/share/rrunctl]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    root: Option<PathBuf>,
    /// Where what a reboot may take is [default: /run/rrunctl or $XDG_RUNTIME_DIR/rrunctl, another one for each other
    /// --root]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    run: Option<PathBuf>,
    /// Settings, written as docker's daemon.json [default: /etc/rrunctl/daemon.json or ~/.config/rrunctl/daemon.json]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,
    /// What runs containers [default: $RRUNCTL_RUNTIME, or rrun beside rrunctl or in $PATH]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    oci_runtime: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Attach(container::attach::Attach),
    CheckConfig(check_config::CheckConfig),
    Commit(container::images::Commit),
    Completion(generate::Completion),
    #[command(subcommand)]
    Container(container::Command),
    Cp(container::cp::Cp),
    Create(Box<container::run::Create>),
    Diff(container::images::Diff),
    Exec(Box<container::exec::Exec>),
    Export(container::images::Export),
    #[command(subcommand)]
    Generate(generate::Generate),
    History(images::History),
    #[command(subcommand)]
    Image(image::Command),
    Images(images::List),
    Import(image::Import),
    Info(info::Info),
    Inspect(inspect::Inspect),
    InternalEnded(container::lifecycle::InternalEnded),
    InternalHold(container::exec::InternalHold),
    Kill(container::lifecycle::Kill),
    Load(image::Load),
    Login(registry::Login),
    Logout(registry::Logout),
    Logs(container::logs::Logs),
    #[command(subcommand)]
    Network(network::Command),
    Pause(container::lifecycle::Pause),
    Port(container::port::Port),
    Ps(container::ps::Ps),
    Pull(registry::Pull),
    Push(registry::Push),
    Rename(container::lifecycle::Rename),
    Restart(container::lifecycle::Restart),
    Rm(container::lifecycle::Rm),
    Rmi(image::Remove),
    Run(Box<container::run::Run>),
    Save(image::Save),
    Start(container::lifecycle::Start),
    Stats(container::stats::Stats),
    Stop(container::lifecycle::Stop),
    #[command(subcommand)]
    System(disk::System),
    Tag(image::Tag),
    Top(container::top::Top),
    Unpause(container::lifecycle::Unpause),
    Update(Box<container::update::Update>),
    Version(info::Version),
    #[command(subcommand)]
    Volume(volume::Command),
    Wait(container::lifecycle::Wait),
}

/// The commands that run while somebody waits for a container. clap builds every flag of every command before it looks at
/// a word, which takes longer than all else that such a command does by itself.
#[derive(Debug, Subcommand)]
enum Frequent {
    Exec(Box<container::exec::Exec>),
    InternalEnded(container::lifecycle::InternalEnded),
    Run(Box<container::run::Run>),
}

impl From<Frequent> for Command {
    fn from(command: Frequent) -> Self {
        match command {
            Frequent::Exec(command) => Self::Exec(command),
            Frequent::InternalEnded(command) => Self::InternalEnded(command),
            Frequent::Run(command) => Self::Run(command),
        }
    }
}

/// Reads the words: as one of the frequent commands, if they are one that has nothing wrong, or as any.
fn read(words: &[OsString]) -> Result<(Place, Command), clap::Error> {
    let frequent = ["exec", "internal-ended", "run"].map(OsString::from);
    if words.iter().any(|word| frequent.contains(word))
        && let Ok(cli) = Cli::<Frequent>::try_parse_from(words)
    {
        return Ok((cli.place, cli.command.into()));
    }
    Cli::<Command>::try_parse_from(words).map(|cli| (cli.place, cli.command))
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (place, command) = match read(&arguments.collect::<Vec<_>>()) {
        Ok(read) => read,
        Err(e) => return usage(&e),
    };
    // What is made is the engine's and its containers', who read it by another user: hosts, volumes, sources of mounts.
    let umask = umask(Mode::from_raw_mode(0o022));
    let at = At {
        place,
        umask,
        of_user: !geteuid().is_root(),
        // In another mount namespace, which a user's command enters, the kernel would tell less than the whole path.
        own: std::env::current_exe().unwrap_or_default(),
        home: OnceCell::new(),
        engine: OnceCell::new(),
        gone: Cell::new(false),
        failed: Cell::new(false),
        code: Cell::new(None),
    };
    let done = match command {
        Command::Attach(command) => command.run(&at),
        Command::CheckConfig(command) => command.run(&at),
        Command::Commit(command) => command.run(&at),
        Command::Completion(command) => command.run(&at),
        Command::Container(command) => command.run(&at),
        Command::Cp(command) => command.run(&at),
        Command::Create(command) => command.run(&at),
        Command::Diff(command) => command.run(&at),
        Command::Exec(command) => command.run(&at),
        Command::Export(command) => command.run(&at),
        Command::Generate(command) => command.run(&at),
        Command::History(command) => command.run(&at),
        Command::Image(command) => command.run(&at),
        Command::Images(command) => command.run(&at),
        Command::Import(command) => command.run(&at),
        Command::Info(command) => command.run(&at),
        Command::Inspect(command) => command.run(&at),
        Command::InternalEnded(command) => command.run(&at),
        Command::InternalHold(command) => command.run(),
        Command::Kill(command) => command.run(&at),
        Command::Load(command) => command.run(&at),
        Command::Login(command) => command.run(&at),
        Command::Logout(command) => command.run(&at),
        Command::Logs(command) => command.run(&at),
        Command::Network(command) => command.run(&at),
        Command::Pause(command) => command.run(&at),
        Command::Port(command) => command.run(&at),
        Command::Ps(command) => command.run(&at),
        Command::Pull(command) => command.run(&at),
        Command::Push(command) => command.run(&at),
        Command::Rename(command) => command.run(&at),
        Command::Restart(command) => command.run(&at),
        Command::Rm(command) => command.run(&at),
        Command::Rmi(command) => command.run(&at),
        Command::Run(command) => command.run(&at),
        Command::Save(command) => command.run(&at),
        Command::Start(command) => command.run(&at),
        Command::Stats(command) => command.run(&at),
        Command::Stop(command) => command.run(&at),
        Command::System(command) => command.run(&at),
        Command::Tag(command) => command.run(&at),
        Command::Top(command) => command.run(&at),
        Command::Unpause(command) => command.run(&at),
        Command::Update(command) => command.run(&at),
        Command::Version(command) => command.run(&at),
        Command::Volume(command) => command.run(&at),
        Command::Wait(command) => command.run(&at),
    };
    if let Err(e) = done
        && !at.gone.get()
    {
        at.complain(&e);
    }
    ExitCode::from(at.code.get().unwrap_or_else(|| u8::from(at.failed.get())))
}

/// What clap says of arguments that it cannot take, in one line; help, where that was asked for. 125 as docker has it
/// for flags, 1 for commands and what is missing.
fn usage(e: &clap::Error) -> ExitCode {
    let text = e.to_string();
    match e.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let mut said = String::new();
    let mut about = String::from("rrunctl");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let words =
                usage.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
            about = words.collect::<Vec<_>>().join(" ");
        } else if !line.starts_with("For more information") {
            let gap = if said.is_empty() || said.ends_with([':', ',']) { "" } else { ";" };
            said = format!("{said}{gap} {}", line.trim_start_matches("error: "));
        }
    }
    let _ = writeln!(io::stderr(), "Error:{} (see '{about} --help')", table::printable(&said));
    let unknown = matches!(e.kind(), ErrorKind::InvalidSubcommand | ErrorKind::MissingRequiredArgument);
    ExitCode::from(if unknown { 1 } else { 125 })
}

/// What a command works with.
#[derive(Debug)]
struct At {
    place: Place,
    /// That of whoever has started it, for what is made for them.
    umask: Mode,
    /// Somebody else than root has started it.
    of_user: bool,
    /// This program's file.
    own: PathBuf,
    home: OnceCell<Home>,
    engine: OnceCell<Engine>,
    /// Nobody reads standard output any more.
    gone: Cell<bool>,
    /// Something was complained about.
    failed: Cell<bool>,
    /// What a container ended with, where the command's code is that.
    code: Cell<Option<u8>>,
}

impl At {
    fn home(&self) -> Result<&Home> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let given = match (&self.place.root, std::env::var_os("RRUNCTL_ROOT")) {
            (Some(root), _) => Some(root.clone()),
            (None, Some(root)) if !root.is_empty() => Some(root.into()),
            _ => None,
        };
        // Who gives both needs no home.
        let [default_root, default_run] = match (&given, &self.place.run) {
            (Some(root), Some(run)) => [root.clone(), run.clone()],
            _ if !self.of_user => [ROOT.into(), RUN.into()],
            _ => rootless::places().map(|[root, run, _]| [root, run])?,
        };
        // Another engine's containers are not this one's, and what is left of them is no rubbish.
        let run = match (&self.place.run, &given) {
            (Some(run), _) => run.clone(),
            (None, Some(root)) if *root != default_root => {
                let root = std::path::absolute(root).context(|| root.display().to_string())?;
                let name = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
                format!("{}-{}", default_run.display(), &name[..12]).into()
            }
            _ => default_run,
        };
        let root = given.unwrap_or(default_root);
        if self.of_user {
            let run = std::path::absolute(&run).context(|| run.display().to_string())?;
            for warning in rootless::enter(&run)? {
                self.warn(warning);
            }
        }
        let home = Home::open(&root, &run).map_err(|e| match e.errno() {
            Some(Errno::ACCESS | Errno::PERM) => e.remedy("give --root and --run of your own"),
            _ => e,
        })?;
        Ok(self.home.get_or_init(|| home))
    }

    /// The engine, with rrun and rrunmon: those beside this program, or of $PATH.
    fn engine(&self) -> Result<&Engine> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let home = self.home()?;
        let given = self.given_runtime()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut command =
            vec![text(&self.own), "--root".into(), text(home.root()), "--run".into(), text(home.run())];
        let config = self.config();
        if self.place.config.is_some() || self.of_user && config.exists() {
            let config = std::path::absolute(&config).context(|| config.display().to_string())?;
            command.extend(["--config".to_owned(), text(&config)]);
        }
        if let Some(runtime) = &given {
            command.extend(["--oci-runtime".to_owned(), text(runtime)]);
        }
        let runtime = given.map_or_else(|| self.beside("rrun"), Ok)?;
        let programs = Programs { runtime, monitor: self.beside("rrunmon")?, own: command };
        let engine = Engine::open(home.clone(), self.settings()?, programs)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// A program that comes with this one: beside it, or the first in `$PATH`.
    fn beside(&self, name: &str) -> Result<PathBuf> {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let of_path = std::env::split_paths(&dirs).map(|dir| dir.join(name));
        let mut all = self.own.parent().map(|dir| dir.join(name)).into_iter().chain(of_path);
        all.find(|path| path.is_file()).ok_or_else(|| {
            Error::not_found(format!("{name}: neither beside {} nor in $PATH", self.own.display()))
                .remedy("install it, or give its path")
        })
    }

    /// What was given to run containers, instead of rrun.
    fn given_runtime(&self) -> Result<Option<PathBuf>> {
        let given = match &self.place.oci_runtime {
            Some(path) => Some(path.clone()),
            None => std::env::var_os("RRUNCTL_RUNTIME").filter(|path| !path.is_empty()).map(PathBuf::from),
        };
        given.map(|path| std::path::absolute(&path).context(|| path.display().to_string())).transpose()
    }

    fn store(&self) -> Result<Store> {
        Store::open(self.home()?)
    }

    /// Where the settings are.
    fn config(&self) -> PathBuf {
        let of_user = || self.of_user.then(rootless::places)?.ok().map(|[.., path]| path);
        self.place.config.clone().or_else(of_user).unwrap_or_else(|| CONFIG.into())
    }

    fn settings(&self) -> Result<Settings> {
        let path = self.config();
        let settings = match Settings::read(&path)? {
            Some(settings) => settings,
            None if self.place.config.is_some() => {
                return Err(Error::not_found(format!("read {}: no such file or directory", path.display())));
            }
            None => Settings::default(),
        };
        for warning in &settings.warnings {
            self.warn(warning);
        }
        Ok(settings)
    }

    /// Writes a result to standard output.
    fn print(&self, text: impl Display) -> Result<()> {
        self.wrote(write!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()))
    }

    /// The same, and a line's end.
    fn say(&self, text: impl Display) -> Result<()> {
        self.print(format_args!("{text}\n"))
    }

    /// Looks at what writing to standard output came to.
    fn wrote(&self, result: io::Result<()>) -> Result<()> {
        if let Err(e) = &result {
            self.gone.set(self.gone.get() || e.kind() == io::ErrorKind::BrokenPipe);
        }
        result.context(|| "write to standard output")
    }

    /// Says on standard error what failed, and goes on with the rest.
    fn complain(&self, e: &Error) {
        self.failed.set(true);
        let _ = writeln!(io::stderr(), "Error: {}", table::printable(&e.to_string()));
    }

    /// Says on standard error what is no failure.
    fn note(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{}", table::printable(&text.to_string()));
    }

    fn warn(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "WARNING: {text}");
    }

    /// Does something with each of several; what fails is told, and the rest is done all the same.
    fn each(&self, names: &[String], mut work: impl FnMut(&str) -> Result<()>) -> Result<()> {
        for name in names {
            match work(name) {
                Err(e) if !self.gone.get() => self.complain(&e),
                other => other?,
            }
        }
        Ok(())
    }

    /// Asks, unless it shall not; no answer is no.
    fn confirmed(&self, force: bool, warning: &str) -> Result<bool> {
        if force {
            return Ok(true);
        }
        self.print(format_args!("WARNING! {warning}\nAre you sure you want to continue? [y/N] "))?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).context(|| "read standard input")?;
        if !io::stdin().is_terminal() {
            self.say("")?;
        }
        Ok(answer.trim().eq_ignore_ascii_case("y"))
    }

    /// Runs a work that tells how far it is.
    fn progress<T>(
        &self,
        quiet: bool,
        work: impl FnOnce(crate::progress::Sink<'_>) -> Result<T>,
    ) -> Result<T> {
        self.progress_to(io::stdout(), quiet, work)
    }

    /// Likewise, on another stream.
    fn progress_to<T>(
        &self,
        out: impl io::Write + io::IsTerminal + AsFd + Send,
        quiet: bool,
        work: impl FnOnce(crate::progress::Sink<'_>) -> Result<T>,
    ) -> Result<T> {
        let how = match quiet {
            true => How::Quiet,
            false if out.is_terminal() => {
                How::Terminal(rustix::termios::tcgetwinsize(&out).map_or(80, |size| size.ws_col.max(1)))
            }
            false => How::Plain,
        };
        let progress = Progress::new(out, how);
        work(&|event: Event| progress.show(event))
    }

    /// The containers that were made from an image.
    fn users(&self, image: &Digest) -> Result<Vec<User>> {
        // Images alone need neither rrun nor a monitor.
        let containers = Containers::open(self.home()?).list()?;
        let id = image.to_string();
        if containers.iter().any(|container| container.record.image == id) {
            return self.engine()?.users(image);
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn each_command(command: &clap::Command, path: &str, check: &mut impl FnMut(&clap::Command, &str)) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            check(sub, &path);
            each_command(sub, &path, check);
        }
    }

    #[test]
    fn no_two_flags_of_a_command_are_alike() {
        Cli::<Command>::command().debug_assert();
    }

    #[test]
    fn a_frequent_command_is_read_as_among_all() {
        for line in [
            "rrunctl run --rm -it image sh -c exit",
            "rrunctl --root=/r run --name run image run",
            "rrunctl run --root /r -d image",
            "rrunctl exec --user 1 one exec --help",
            "rrunctl --root run internal-ended one",
            "rrunctl container run image",
            "rrunctl rm run",
            "rrunctl --root exec rm run",
            "rrunctl run --help",
            "rrunctl run --no-such image",
            "rrunctl help run",
            "rrunctl run",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let among_all = Cli::<Command>::try_parse_from(&words).map(|cli| (cli.place, cli.command));
            let text = |read: Result<(Place, Command), clap::Error>| match read {
                Ok(read) => format!("{read:?}"),
                Err(e) => e.to_string(),
            };
            assert_eq!(text(read(&words)), text(among_all), "{line}");
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_how() {
        each_command(&Cli::<Command>::command(), "rrunctl", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path}");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                command.has_subcommands() || examples.starts_with("Examples:\n  rrunctl "),
                "{path}: {examples}"
            );
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
        });
    }
}
