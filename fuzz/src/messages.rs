//! The words between rrun and the container's first process, which may be anybody's by then. The input is what comes
//! out of the socket, of any length.

#![forbid(unsafe_code)]

use super::{machine, report};
use rrun::launch::protocol::{Lost, Message, Report, SIZE, pair, receive, send, unexpected};
use rrun::launch::words;
use rrun::plan::Plan;
use rrun::plan::exec::ExecPlan;
use rrun::spec::Spec;
use rrun::spec::read::document;
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use rustix::net::SendFlags;

pub fn check(data: &[u8]) {
    through_a_socket(data);
    let mut whole = [0; SIZE];
    for (slot, byte) in whole.iter_mut().zip(data) {
        *slot = *byte;
    }
    let Some(message) = Message::decode(&whole) else { return };
    comes_back(&message);
    bounded(&message);
    report::one_line(&unexpected(&message).to_string(), SIZE);
    if let Message::Fault(report) = &message {
        worded(report);
    }
}

/// A message is one of the right length, and the socket gives it to whoever asks.
fn through_a_socket(data: &[u8]) {
    thread_local! {
        static PAIR: (rustix::fd::OwnedFd, rustix::fd::OwnedFd) = pair().unwrap();
    }
    // An empty one reads as the end, which the other side can say in other ways.
    if data.is_empty() || data.len() > 4096 {
        return;
    }
    PAIR.with(|(theirs, ours)| {
        let want = match <&[u8; SIZE]>::try_from(data) {
            Ok(whole) => Message::decode(whole).ok_or(Lost::Broken(Errno::PROTO)),
            Err(_) => Err(Lost::Broken(Errno::PROTO)),
        };
        rustix::net::send(theirs, data, SendFlags::empty()).unwrap();
        let got = receive(ours);
        assert_eq!(got.as_ref().map(|(message, _)| message), want.as_ref());
        // Whatever comes, with as many descriptors as it likes: none is left behind, as they are owned.
        if let Ok((message, fds)) = got {
            assert!(fds.is_empty());
            let many = vec![theirs.as_fd(); usize::from(data[1] % 5)];
            send(theirs, &message, &many).unwrap();
            let again = Message::decode(&message.encode()).unwrap();
            assert_eq!(receive(ours).map(|(got, fds)| (got, fds.len())), Ok((again, many.len())));
        }
    });
}

/// Sent on it means the same; a text that is longer than its place is cut and no more.
fn comes_back(message: &Message) {
    let again = Message::decode(&message.encode()).unwrap();
    match (message, &again) {
        (Message::Fault(sent), Message::Fault(got)) => {
            assert_eq!((sent.step, sent.index, sent.errno), (got.step, got.index, got.errno));
            assert!(sent.call.starts_with(&got.call) && sent.note.starts_with(&got.note), "{sent:?} {got:?}");
            // What is not UTF-8 grows by what stands in for it.
            assert!(sent.call == got.call || sent.call.contains('\u{fffd}'), "{sent:?} {got:?}");
            assert!(sent.note == got.note || sent.note.contains('\u{fffd}'), "{sent:?} {got:?}");
        }
        (sent, got) => assert_eq!(sent, got),
    }
    assert_eq!(Message::decode(&again.encode()).as_ref(), Some(&again));
}

fn bounded(message: &Message) {
    match message {
        Message::Sources(list) => assert!(list.len() <= SIZE / 2),
        // Each byte may become one of three bytes.
        Message::Fault(report) => assert!(report.call.len() + report.note.len() <= 3 * SIZE),
        _ => {}
    }
}

/// Every fault has words, whatever it points at.
fn worded(report: &Report) {
    thread_local! {
        static PLANS: (Plan, ExecPlan) = plans();
    }
    PLANS.with(|(plan, exec)| {
        for e in [
            words::of_init(plan, report),
            words::of_exec(exec, report),
            words::of_process(&plan.process, report),
        ] {
            report::one_line(&e.to_string(), SIZE);
        }
    });
}

fn plans() -> (Plan, ExecPlan) {
    let text = rrun::default_spec::text(None, false);
    let spec: Spec = document(text.as_bytes()).unwrap();
    let (host, driver) = machine::machine(0);
    let request = machine::request(driver);
    let plan = Plan::build(&spec, &request, &host).unwrap();
    let exec = ExecPlan::build(&spec, "fuzzed", spec.process.as_deref().unwrap(), false).unwrap();
    (plan, exec)
}
