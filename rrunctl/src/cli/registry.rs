//! `pull`, `push`, `login` and `logout`.

#![forbid(unsafe_code)]

use super::At;
use crate::error::{Context as _, Error, Result};
use crate::image::Platform;
use crate::reference::Reference;
use crate::registry::{Client, Credentials, Kept, PullOptions};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Read as _, Write as _};

const HUB: &str = "docker.io";

impl At {
    pub(super) fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.settings()?, Credentials::of_user()))
    }

    /// A name; says what is filled in.
    fn named(&self, text: &str, quiet: bool) -> Result<Reference> {
        let named = Reference::parse_without_default(text)?;
        if named.tag.is_none() && named.digest.is_none() && !quiet {
            self.say("Using default tag: latest")?;
        }
        Reference::parse(text)
    }
}

/// Bring an image here from a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl pull busybox
  rrunctl pull localhost:5000/team/app:1.0
  rrunctl pull --platform linux/arm64 alpine:3.20

Mirrors and insecure registries are named in the settings (--config).")]
pub(super) struct Pull {
    /// Without a registry it is docker.io, without a tag latest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
    /// For another machine than this one: OS[/ARCH[/VARIANT]]
    #[arg(long)]
    platform: Option<String>,
    /// Only the name, at the end
    #[arg(short, long)]
    quiet: bool,
}

impl Pull {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let platform = self.platform.as_deref().map(Platform::parse).transpose()?;
        let name = at.named(&self.name, self.quiet)?;
        let store = at.store()?;
        let options = PullOptions { platform };
        let client = at.client()?;
        at.progress(self.quiet, |sink| client.pull(&store, &name, &options, sink))?;
        at.say(&name)
    }
}

/// Bring an image from here to its registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl tag busybox localhost:5000/busybox
  rrunctl push localhost:5000/busybox
  rrunctl push -a localhost:5000/busybox")]
pub(super) struct Push {
    /// The name says where it goes
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Every tag of the name
    #[arg(short, long)]
    all_tags: bool,
    /// Only the name, at the end
    #[arg(short, long)]
    quiet: bool,
}

impl Push {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let store = at.store()?;
        let names = if self.all_tags {
            let asked = Reference::parse_without_default(&self.name)?;
            if asked.tag.is_some() || asked.digest.is_some() {
                return Err(Error::invalid("tag can't be used with --all-tags/-a"));
            }
            let names = store.images().references()?.into_keys();
            let names: Vec<Reference> =
                names.filter(|name| name.name() == asked.name() && name.tag.is_some()).collect();
            if names.is_empty() {
                return Err(Error::not_found(format!(
                    "An image does not exist locally with the tag: {}",
                    asked.familiar_name()
                )));
            }
            names
        } else {
            vec![at.named(&self.name, self.quiet)?]
        };
        let client = at.client()?;
        for name in names {
            at.progress(self.quiet, |sink| client.push(&store, &name, sink))?;
            if self.quiet {
                at.say(&name)?;
            }
        }
        Ok(())
    }
}

/// Log in to a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl login --username=me registry.example.org
  rrunctl login -u me --password-stdin localhost:5000 < password

What is asked for and kept is in ~/.docker/config.json, or with the helper that is named there.")]
pub(super) struct Login {
    /// HOST[:PORT] [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// Who logs in
    #[arg(short, long)]
    username: Option<String>,
    /// The password, or a token; others can read it in ps(1)
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl Login {
    pub(super) fn run(self, at: &At) -> Result<()> {
        let server = self.server.unwrap_or_else(|| HUB.to_owned());
        let client = at.client()?;
        if self.password.is_some() {
            at.warn("Using --password via the CLI is insecure. Use --password-stdin.");
        }
        let username = match self.username {
            Some(username) => username,
            None => asked("Username: ", false)?,
        };
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => {
                let mut password = String::new();
                // Nobody's password is longer; whoever pipes a disk image in is told so.
                io::stdin().take(1 << 16).read_to_string(&mut password).context(|| "read standard input")?;
                password.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => asked("Password: ", true)?,
        };
        if username.is_empty() {
            return Err(Error::invalid("username is empty"));
        }
        if password.is_empty() {
            return Err(Error::invalid("password is empty"));
        }
        let done = client.login(&server, &username, &password)?;
        if let Kept::File(path) = done.kept {
            at.warn(format_args!(
                "Your credentials are stored unencrypted in '{}'. A credential helper (credsStore) keeps them better.",
                path.display()
            ));
        }
        at.say("Login Succeeded")
    }
}

/// Asks at the terminal.
fn asked(question: &str, hidden: bool) -> Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Error::invalid("Cannot perform an interactive login from a non TTY device")
            .remedy("use --username and --password-stdin"));
    }
    // First: who types as soon as they are asked is not seen either.
    let hiding = if hidden { Some(Hidden::new()?) } else { None };
    let _ = write!(io::stderr(), "{question}");
    let mut answer = String::new();
    input.read_line(&mut answer).context(|| "read standard input")?;
    if hiding.is_some() {
        let _ = writeln!(io::stderr());
    }
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it is there the terminal does not show what is typed.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self> {
        let shown = tcgetattr(io::stdin()).context(|| "tcgetattr of standard input")?;
        let mut hidden = shown.clone();
        hidden.local_modes -= LocalModes::ECHO;
        // What was typed ahead stays: a script types without waiting.
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden).context(|| "tcsetattr of standard input")?;
        Ok(Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Forget the credentials for a registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rrunctl logout registry.example.org")]
pub(super) struct Logout {
    /// HOST[:PORT] [default: Docker Hub]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Logout {
    pub(super) fn run(self, at: &At) -> Result<()> {
        at.say(at.client()?.logout(self.server.as_deref().unwrap_or(HUB))?)
    }
}
