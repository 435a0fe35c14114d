//! Runs of agents, as far as calls have to do with them: what a run asks a model, and how a call
//! asks for a run.

mod api;
mod aside;
mod audited;
mod below;
mod beside;
mod broker;
mod budgets;
mod counted;
mod crashes;
mod delegates;
mod doors;
mod example;
mod forked;
mod kill;
mod kinds;
mod library;
mod mishaps;
mod people;
mod random;
mod retried;
mod rights;
mod rotated;
mod servers;
mod sessions;
pub(crate) mod stage;
mod steering;
mod surfaces;
mod terminal;
mod traced;
mod turns;
mod unknown;
mod versions;
mod villain;
mod walls;
mod watched;
mod window;
