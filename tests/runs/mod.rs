//! Runs of agents, as far as calls have to do with them: what a run asks a model, and how a call
//! asks for a run.

mod api;
mod broker;
mod doors;
mod kill;
mod kinds;
mod terminal;
mod library;
mod steering;
mod surfaces;
mod turns;
mod villain;
mod watched;
