//! Refuses work early when too much is in flight already: a tower layer for the door.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

/// Counts the calls in flight against a limit.
#[derive(Debug, Clone)]
pub struct Gauge(Arc<State>);

#[derive(Debug)]
struct State {
    in_flight: AtomicUsize,
    limit: AtomicUsize,
}

/// One call in flight, until dropped. It travels with the reply, so that a stream counts until its
/// last byte and not just until its headers.
#[derive(Debug)]
pub struct Permit(Arc<State>);

/// Gives each request a permit, or says that there is none.
#[derive(Debug, Clone)]
pub struct Shed<S> {
    inner: S,
    gauge: Gauge,
}

/// The layer that adds `Shed`.
#[derive(Debug, Clone)]
pub struct ShedLayer(pub Gauge);

// === impl Gauge ===

impl Gauge {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(State { in_flight: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }))
    }

    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    pub fn acquire(&self) -> Option<Permit> {
        let limit = self.0.limit.load(Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.0));
        // Counted first: the permit gives it back when it turns out to be one too many.
        (self.0.in_flight.fetch_add(1, Ordering::Relaxed) < limit).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Shed ===

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<S>;

    fn layer(&self, inner: S) -> Shed<S> {
        Shed { inner, gauge: self.0.clone() }
    }
}

impl<S, B> Service<Request<B>> for Shed<S>
where
    S: Service<(Request<B>, Option<Permit>)>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let permit = self.gauge.acquire();
        self.inner.call((request, permit))
    }
}

/// The future of a boxed service call.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
