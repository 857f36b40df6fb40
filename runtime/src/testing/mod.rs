//! Test kit, for our own tests and for our users': a clock that stands still, a disk that forgets, and a simulator that
//! runs the shipped machines on one seeded thread and crashes them at every step.

mod clock;
mod drains;
mod harness;
mod observe;
mod script;
mod scripted_time;
mod sim_control;
pub mod sim_store;
mod sim_world;
mod simulation;

pub use self::clock::ManualClock;
pub use self::drains::{Drains, check_drains};
pub use self::harness::{HarnessFailure, ScriptSink, check, check_at, check_steps};
pub use self::observe::{ObserveOf, Observed};
pub use self::script::{ScriptSource, Step};
pub use self::scripted_time::{ScriptedTime, Timing};
pub use self::sim_control::SimControl;
pub use self::sim_world::{Numbered, Outside, SimSink, SimSource};
pub use self::simulation::{SimConfig, SimFailure, SimReport, simulate};
