use super::*;
use serde_json::{Value, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron_job(spec: Value, last: Option<&str>) -> CronJob {
    let mut full = json!({"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
        "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "cron", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": full, "status": {"lastScheduleTime": last}}))
    .unwrap()
}

fn job(name: &str, condition: Option<&str>, start: &str) -> Arc<Job> {
    let conditions: Vec<Value> = condition.iter().map(|c| json!({"type": c, "status": "True"})).collect();
    let done = condition.map(|_| start);
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"template": {}}, "status": {"startTime": start, "completionTime": done, "conditions": conditions}}))
        .unwrap(),
    )
}

fn run(cron_job: &CronJob, jobs: &[Arc<Job>], now: &str) -> Decision {
    decide(&View { cron_job, jobs, zone: Ok(&TimeZone::UTC), now: at(now) })
}

fn made(decision: &Decision) -> Vec<String> {
    let names =
        decision.actions.iter().filter_map(|a| if let Action::Create(j) = a { Some(name(j).to_owned()) } else { None });
    names.collect()
}

fn deleted(decision: &Decision) -> Vec<&str> {
    decision.actions.iter().filter_map(|a| if let Action::Delete(j) = a { Some(name(j)) } else { None }).collect()
}

fn reasons(decision: &Decision) -> Vec<&str> {
    decision
        .actions
        .iter()
        .filter_map(|a| if let Action::Event { reason, .. } = a { Some(*reason) } else { None })
        .collect()
}

#[test]
fn a_job_is_made_when_its_time_has_come_and_once_only() {
    let early = run(&cron_job(json!({}), None), &[], "2026-01-01T00:09:59Z");
    assert!(made(&early).is_empty());
    assert_eq!(early.wake_at, Some(at("2026-01-01T00:10:00Z")));
    let due = run(&cron_job(json!({}), None), &[], "2026-01-01T00:10:00Z");
    let Some(Action::Create(job)) = due.actions.first() else { panic!("no job: {:?}", due.actions) };
    assert_eq!(name(job), format!("c-{}", at("2026-01-01T00:10:00Z").as_second() / 60));
    assert_eq!(job.metadata.annotations.as_ref().unwrap()[SCHEDULED], "2026-01-01T00:10:00Z");
    assert_eq!(job.metadata.labels.as_ref().unwrap()["a"], "b");
    assert_eq!(due.status.last_schedule_time, Some(Time(at("2026-01-01T00:10:00Z"))));
    let again = run(&cron_job(json!({}), Some("2026-01-01T00:10:00Z")), &[], "2026-01-01T00:10:01Z");
    assert!(made(&again).is_empty());
}

#[test]
fn of_many_missed_times_only_the_latest_is_made_up_for() {
    let late = run(&cron_job(json!({}), Some("2026-01-01T00:10:00Z")), &[], "2026-01-01T05:03:00Z");
    assert_eq!(late.status.last_schedule_time, Some(Time(at("2026-01-01T05:00:00Z"))));
    assert_eq!((made(&late).len(), reasons(&late).len()), (1, 0));
    let very_late = run(&cron_job(json!({}), Some("2026-01-01T00:10:00Z")), &[], "2026-01-03T05:03:00Z");
    assert_eq!((made(&very_late).len(), reasons(&very_late)), (1, vec!["TooManyMissedTimes"]));
    let bounded = cron_job(json!({"startingDeadlineSeconds": 100}), Some("2026-01-01T00:10:00Z"));
    assert!(made(&run(&bounded, &[], "2026-01-01T05:03:00Z")).is_empty(), "five o'clock is too long ago");
    assert_eq!(made(&run(&bounded, &[], "2026-01-01T05:01:00Z")).len(), 1);
}

#[test]
fn concurrency_policies_forbid_replace_or_allow() {
    let running = [job("c-1", None, "2026-01-01T00:00:00Z")];
    for (policy, creates, deletes, said) in
        [("Allow", 1, 0, vec![]), ("Forbid", 0, 0, vec!["JobAlreadyActive"]), ("Replace", 1, 1, vec![])]
    {
        let mut cron_job = cron_job(json!({"concurrencyPolicy": policy}), None);
        cron_job.status.as_mut().unwrap().active = Some(vec![reference(&running[0])]);
        let decision = run(&cron_job, &running, "2026-01-01T00:10:00Z");
        assert_eq!(
            (made(&decision).len(), deleted(&decision).len(), reasons(&decision)),
            (creates, deletes, said),
            "{policy}"
        );
    }
}

#[test]
fn history_is_trimmed_and_ended_jobs_leave_the_active_list() {
    let jobs = [
        job("good-old", Some("Complete"), "2026-01-01T00:00:00Z"),
        job("good-new", Some("Complete"), "2026-01-01T00:01:00Z"),
        job("bad-old", Some("Failed"), "2026-01-01T00:00:00Z"),
        job("bad-new", Some("Failed"), "2026-01-01T00:01:00Z"),
    ];
    let mut cron_job = cron_job(json!({"suspend": true}), None);
    cron_job.status.as_mut().unwrap().active = Some(vec![reference(&jobs[1])]);
    let decision = run(&cron_job, &jobs, "2026-01-01T01:00:00Z");
    assert_eq!(deleted(&decision), ["good-old", "bad-old"]);
    assert_eq!(reasons(&decision), ["SawCompletedJob"]);
    assert_eq!((decision.status.active, decision.wake_at), (None, None));
    assert_eq!(decision.status.last_successful_time, Some(Time(at("2026-01-01T00:01:00Z"))));
}

#[test]
fn time_zones_move_the_schedule_and_an_unknown_one_says_so() {
    let zone = TimeZone::posix("CET-1").unwrap();
    let cron_job = cron_job(json!({"schedule": "0 9 * * *", "timeZone": "Europe/Somewhere"}), None);
    let view = View { cron_job: &cron_job, jobs: &[], zone: Ok(&zone), now: at("2026-01-01T08:00:00Z") };
    let decision = decide(&view);
    let Some(Action::Create(job)) = decision.actions.first() else { panic!("no job") };
    assert_eq!(job.metadata.annotations.as_ref().unwrap()[SCHEDULED], "2026-01-01T09:00:00+01:00");
    let unknown = decide(&View { zone: Err("unknown time zone"), ..view });
    assert_eq!((made(&unknown).len(), reasons(&unknown)), (0, vec!["UnknownTimeZone"]));
}
