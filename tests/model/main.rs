//! The charge protocol, explored exhaustively: every order in which two instances, the network, the gateway, notices, time,
//! crashes and people can act on one charge.
//!
//! The model is the schedule alone. What an answer means, what follows from it, and which states may follow which is decided by
//! the functions of `src/domain` that the program itself calls. `docs/model.md` explains it and holds the figures; they are
//! compared with what is found here.

mod bookkeeping;
mod configuration;
mod news;
mod properties;
mod protocol;
mod step;
mod surroundings;
mod taking;
mod world;

use std::thread;

use stateright::{Checker, HasDiscoveries, Model};

use crate::configuration::{CONFIGURATIONS, Configuration, Variant};
use crate::protocol::Protocol;

const DOCUMENT: &str = include_str!("../../docs/model.md");

/// No way to break a variant is so long.
const DEPTH_MAX: usize = 40;

/// What an exploration of a configuration found.
struct Explored {
    /// How many distinct worlds there are.
    worlds: usize,
    /// How many steps the farthest of them is away from the first, on the shortest way.
    steps_max: usize,
}

#[test]
fn no_order_of_events_moves_the_money_twice_or_leaves_a_charge_behind() {
    let [largest, others @ ..] = CONFIGURATIONS;
    let explored = thread::scope(|scope| {
        let largest = scope.spawn(move || explore(largest));
        let others = others.map(explore);
        let largest = largest.join().expect("the largest configuration holds");
        [largest].into_iter().chain(others)
    });
    let mut found = vec!["| configuration | worlds | farthest |".to_owned()];
    for (configuration, explored) in CONFIGURATIONS.iter().zip(explored) {
        found.push(row(&[
            configuration.name,
            &explored.worlds.to_string(),
            &explored.steps_max.to_string(),
        ]));
    }
    compare(&found, "Configurations");
}

#[test]
fn every_broken_variant_is_caught() {
    let mut found = vec!["| variant | caught by | steps |".to_owned()];
    for variant in Variant::ALL {
        let caught = catch(variant);
        println!("{}:", variant.name());
        for step in &caught {
            println!("    {step}");
        }
        found.push(row(&[
            variant.name(),
            variant.breaks(),
            &caught.len().to_string(),
        ]));
    }
    compare(&found, "Broken variants");
}

/// Explores every world of a configuration and demands its properties.
fn explore(configuration: Configuration) -> Explored {
    let checker = Protocol::new(configuration)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    checker.assert_properties();
    Explored {
        worlds: checker.unique_state_count(),
        steps_max: checker.max_depth() - 1,
    }
}

/// The shortest way in which a broken variant breaks its property.
fn catch(variant: Variant) -> Vec<String> {
    let mut caught = None;
    let mut shorter_than = DEPTH_MAX;
    loop {
        let checker = Protocol::new(variant.configuration())
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .target_max_depth(shorter_than)
            .spawn_bfs()
            .join();
        // The checker may pass over the shortest way for a longer one that it finds soon after: it is asked again.
        let Some(path) = checker.discovery(variant.breaks()) else {
            return caught.unwrap_or_else(|| panic!("{:?} is not caught", variant.name()));
        };
        let steps: Vec<_> = path
            .into_actions()
            .iter()
            .map(|step| format!("{step:?}"))
            .collect();
        shorter_than = steps.len() + 1;
        caught = Some(steps);
    }
}

fn row(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Holds what was found against the table of a section of the document.
fn compare(found: &[String], heading: &str) {
    let section = DOCUMENT
        .split("\n## ")
        .find_map(|section| section.strip_prefix(heading))
        .unwrap_or_else(|| panic!("docs/model.md has no section {heading:?}"));
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let documented: Vec<&str> = section.lines().filter(is_row).collect();
    println!("{}", found.join("\n"));
    assert_eq!(documented, found, "docs/model.md, {heading}");
}
