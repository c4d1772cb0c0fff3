//! The seeds that every build runs: safe at every write, at rest once the faults stop.

use sim::{Scale, run};

#[test]
fn clusters_stay_safe_under_faults_and_come_to_rest_afterwards() {
    for seed in 1..=12 {
        let outcome = run(seed, Scale { faulty_seconds: 30, ..Scale::SMALL }).unwrap();
        assert!(outcome.writes > 100, "seed {seed} did something");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scale = Scale { faulty_seconds: 20, ..Scale::SMALL };
    assert_eq!(run(7, scale).unwrap(), run(7, scale).unwrap());
}
