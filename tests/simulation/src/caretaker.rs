//! Somebody who answers alarms: a member that finds its disk damaged gets an empty one, then the alarm is cleared.
//!
//! Always holds: an alarm for a member whose disk nothing happened to is a finding. Not here: damage (member/rot.rs).

use std::sync::Arc;
use std::time::Duration;

use wire::etcdserverpb as pb;
use wire::etcdserverpb::maintenance_client::MaintenanceClient;

use crate::member::{CLIENT_PORT, host};
use crate::network::channel;
use crate::roster::Order;
use crate::workload::Shared;

const LOOKS_EVERY: Duration = Duration::from_millis(250);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// For the whole run: an alarm that nobody clears stops the load.
pub(crate) async fn caretaker(shared: Arc<Shared>) {
    let mut asked = 0;
    loop {
        tokio::time::sleep(LOOKS_EVERY).await;
        asked += 1;
        let live = shared.roster.live();
        let Some(number) = live.get(asked % live.len().max(1)) else { continue };
        let mut client = MaintenanceClient::new(channel(&host(*number), CLIENT_PORT));
        let Some(alarms) = alarms(&mut client).await else { continue };
        for alarm in alarms.iter().filter(|alarm| alarm.alarm == pb::AlarmType::Corrupt as i32) {
            answer(&mut client, alarm, &shared).await;
        }
    }
}

type Client = MaintenanceClient<tonic::transport::Channel>;

async fn alarms(client: &mut Client) -> Option<Vec<pb::AlarmMember>> {
    let action = pb::alarm_request::AlarmAction::Get.into();
    let request = pb::AlarmRequest { action, member_id: 0, alarm: pb::AlarmType::None.into() };
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, client.alarm(request)).await.ok()?.ok()?;
    Some(answer.into_inner().alarms)
}

async fn answer(client: &mut Client, alarm: &pb::AlarmMember, shared: &Shared) {
    let Some(number) = shared.roster.number_of(alarm.member_id) else { return };
    if !shared.roster.was_lost(number) {
        return shared.find(format!("alarm CORRUPT for member {number}, whose disk is whole"));
    }
    if shared.roster.is_lost(number) {
        let others = shared.roster.live().into_iter().filter(|other| *other != number).collect();
        shared.roster.order(Order::Empty { number, others });
    }
    let action = pb::alarm_request::AlarmAction::Deactivate.into();
    let request = pb::AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
    let answered = tokio::time::timeout(ANSWER_TIME_MAX, client.alarm(request)).await;
    let is_cleared = matches!(answered, Ok(Ok(_)));
    shared.trace.line(&format!("caretaker: alarm of member {number} cleared: {is_cleared}"));
    if is_cleared {
        shared.alarm_cleared();
    }
}
