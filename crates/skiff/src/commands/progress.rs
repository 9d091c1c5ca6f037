//! Bars on a terminal for work of several phases, one after another, and how amounts of bytes are shown. Used by `datastore` and
//! `migrate`, which say what their phases are called.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How a phase is shown: what is being done, and `indicatif`'s template of the line.
pub struct Shown {
    pub what: &'static str,
    pub template: &'static str,
}

/// Called with a phase, how much of it is done and how much there is. Nothing is shown where there is no terminal.
pub fn bars<P: Copy + PartialEq + Send>(shown: fn(P) -> Shown) -> impl Fn(P, u64, u64) + Send + Sync {
    let current: Mutex<Option<(P, ProgressBar)>> = Mutex::new(None);
    move |phase, done, total| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(of, _)| *of != phase) {
            *current = Some((phase, bar(&shown(phase), total)));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(done);
            if done >= total {
                bar.finish_and_clear();
            }
        }
    }
}

fn bar(shown: &Shown, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(shown.template) {
        bar.set_style(style);
    }
    bar.set_message(shown.what);
    bar
}

#[expect(clippy::cast_precision_loss, reason = "shown with one or two decimals")]
pub fn sized(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.2} GB", b / 1e9),
    }
}
