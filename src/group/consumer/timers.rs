//! Everything that happens to members by the clock: whoever was silent, did not give up its partitions, or (in the
//! classic protocol) did not come when it was told to, is put out.

use super::{Consumer, Deadlines, Step};

impl Deadlines {
    fn first(self) -> Option<i64> {
        [self.session, self.rebalance, self.join, self.sync].into_iter().flatten().min()
    }
}

impl Consumer {
    /// The session of this member begins anew.
    pub(super) fn renew_session(&mut self, step: &Step, member_id: &str, timeout_ms: i32) {
        let deadline = step.now.tick_ms.saturating_add(i64::from(timeout_ms.max(0)));
        if let Some(member) = self.members.get_mut(member_id) {
            member.deadlines.session = Some(deadline);
            self.arm(deadline);
        }
    }

    /// The same by whatever protocol the member speaks.
    pub(super) fn begin_session(&mut self, step: &Step, member_id: &str) {
        let classic = self.members.get(member_id).and_then(|member| member.classic.as_ref());
        let timeout_ms = classic.map_or(step.config.session_timeout_ms, |classic| classic.session_timeout_ms);
        self.renew_session(step, member_id, timeout_ms);
    }

    /// The earliest time at which [`Consumer::fire`] has something to do.
    pub fn next_deadline(&self) -> Option<i64> {
        self.members.values().filter_map(|member| member.deadlines.first()).min()
    }

    /// Puts out everyone whose time is up at `step.now`.
    pub fn fire(&mut self, step: &mut Step) {
        let now = step.now.tick_ms;
        let is_late = |deadlines: Deadlines| deadlines.first().is_some_and(|at| at <= now);
        let late: Vec<(String, Deadlines)> = self
            .members
            .iter()
            .filter(|(_, member)| is_late(member.deadlines))
            .map(|(member_id, member)| (member_id.clone(), member.deadlines))
            .collect();
        for (member_id, deadlines) in late {
            tracing::debug!(member_id, ?deadlines, "a member's time is up");
            self.put_out(&member_id);
        }
        self.store(step);
    }
}
