//! Models of what `host/src/sys/sync.rs` gives to the lock-free files. Memory is loom's; time ends where a scenario says;
//! and each access asks `weaken.rs` whether it is to be weaker than the file wants it.
//!
//! loom knows no sequentially consistent accesses, only fences: it takes such accesses for acquire and release, which is
//! too little. So they are made of acquire, release and a fence, as compilers make them for processors, in either of the
//! two ways there are ([`TotalOrder`]). Each of them hides mistakes at the accesses where it has its fences, which the other
//! one shows: every scenario is run with both.

use crate::weaken::{self, Guarantee};
use loom::sync::atomic::{self as model, fence};
use loom::sync::{Condvar, Mutex};
use std::cell::{Cell, RefCell};
use std::ops::Add;
use std::sync::Arc;
pub use std::sync::atomic::Ordering;
use std::thread::panicking;
use std::time::Duration;

/// Where the fences of sequentially consistent accesses stand. Read-modify-writes count as both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotalOrder {
    /// After each store, as on x86.
    AfterStores,
    /// Before each load.
    BeforeLoads,
}

pub type AtomicU32 = Atomic<model::AtomicU32>;
pub type AtomicU64 = Atomic<model::AtomicU64>;
pub type AtomicUsize = Atomic<model::AtomicUsize>;
pub type AtomicPtr<T> = Atomic<model::AtomicPtr<T>>;

/// An atomic. Once a check has failed, its accesses do nothing: what is dropped then has no model around it any more.
#[derive(Debug)]
pub struct Atomic<M: Model> {
    model: M,
    sleep: M::Sleep,
}

/// What loom's atomics have in common.
pub trait Model {
    type Value: Copy + PartialEq;
    /// How threads sleep on it, if they do.
    type Sleep: Default;
    /// What a new one has by default, and what a load gives that does nothing.
    const ZERO: Self::Value;
    /// Whether an exchange that is not atomic can be tried. It cannot with pointers: what one thread has freed, another
    /// would free again, which no check survives to tell.
    const CAN_TEAR: bool;

    fn new(value: Self::Value) -> Self;
    fn load(&self, order: Ordering) -> Self::Value;
    fn store(&self, value: Self::Value, order: Ordering);
    fn swap(&self, value: Self::Value, order: Ordering) -> Self::Value;
    fn compare_exchange(
        &self,
        from: Self::Value,
        to: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value>;
}

macro_rules! model {
    ([$($parameter:ident)?] $model:ty, $value:ty, $sleep:ty, $zero:expr, $can_tear:expr) => {
        impl$(<$parameter>)? Model for $model {
            type Value = $value;
            type Sleep = $sleep;
            const ZERO: $value = $zero;
            const CAN_TEAR: bool = $can_tear;

            fn new(value: $value) -> Self {
                Self::new(value)
            }

            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }

            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }

            fn swap(&self, value: $value, order: Ordering) -> $value {
                self.swap(value, order)
            }

            fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(from, to, success, failure)
            }
        }
    };
}

model!([] model::AtomicU32, u32, Sleep, 0, true);
model!([] model::AtomicU64, u64, (), 0, true);
model!([] model::AtomicUsize, usize, (), 0, true);
model!([T] model::AtomicPtr<T>, *mut T, (), std::ptr::null_mut(), false);

impl<M: Model> Atomic<M> {
    pub fn new(value: M::Value) -> Atomic<M> {
        Atomic { model: M::new(value), sleep: M::Sleep::default() }
    }

    #[track_caller]
    pub fn load(&self, order: Ordering) -> M::Value {
        if panicking() {
            return M::ZERO;
        }
        let lost = weaken::lost(&guarantees::<M>(order, Access::Load));
        self.access(weakened(order, lost), Access::Load, |order| self.model.load(order))
    }

    #[track_caller]
    pub fn store(&self, value: M::Value, order: Ordering) {
        if panicking() {
            return;
        }
        let lost = weaken::lost(&guarantees::<M>(order, Access::Store));
        self.access(weakened(order, lost), Access::Store, |order| self.model.store(value, order));
    }

    #[track_caller]
    pub fn swap(&self, value: M::Value, order: Ordering) -> M::Value {
        if panicking() {
            return M::ZERO;
        }
        let lost = weaken::lost(&guarantees::<M>(order, Access::Both));
        if lost == Some(Guarantee::Atomicity) {
            let before = self.access(order, Access::Load, |order| self.model.load(order));
            self.access(order, Access::Store, |order| self.model.store(value, order));
            return before;
        }
        self.access(weakened(order, lost), Access::Both, |order| self.model.swap(value, order))
    }

    #[track_caller]
    pub fn compare_exchange(
        &self,
        from: M::Value,
        to: M::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<M::Value, M::Value> {
        if panicking() {
            return Err(M::ZERO);
        }
        // An order on failure stronger than relaxed would need guarantees of its own here.
        assert_eq!(failure, Ordering::Relaxed);
        let lost = weaken::lost(&guarantees::<M>(success, Access::Both));
        if lost == Some(Guarantee::Atomicity) {
            let before = self.access(success, Access::Load, |order| self.model.load(order));
            if before != from {
                return Err(before);
            }
            self.access(success, Access::Store, |order| self.model.store(to, order));
            return Ok(before);
        }
        self.access(weakened(success, lost), Access::Both, |order| {
            self.model.compare_exchange(from, to, order, failure)
        })
    }

    /// As the strong one: where the loop around it is right, failures without a reason only repeat it.
    #[track_caller]
    pub fn compare_exchange_weak(
        &self,
        from: M::Value,
        to: M::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<M::Value, M::Value> {
        self.compare_exchange(from, to, success, failure)
    }

    /// Makes an access of sequential consistency out of those that loom has.
    fn access<R>(&self, order: Ordering, access: Access, perform: impl FnOnce(Ordering) -> R) -> R {
        if order != Ordering::SeqCst {
            return perform(part(order, access));
        }
        let total_order = TOTAL_ORDER.get();
        if total_order == TotalOrder::BeforeLoads && access != Access::Store {
            fence(Ordering::SeqCst);
        }
        let result = perform(part(order, access));
        if total_order == TotalOrder::AfterStores && access != Access::Load {
            fence(Ordering::SeqCst);
        }
        result
    }
}

impl<M: Model> Default for Atomic<M> {
    fn default() -> Self {
        Atomic::new(M::ZERO)
    }
}

impl AtomicUsize {
    #[track_caller]
    pub fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        if panicking() {
            return 0;
        }
        let lost = weaken::lost(&guarantees::<model::AtomicUsize>(order, Access::Both));
        if lost == Some(Guarantee::Atomicity) {
            let before = self.access(order, Access::Load, |order| self.model.load(order));
            self.access(order, Access::Store, |order| self.model.store(before.wrapping_add(value), order));
            return before;
        }
        self.access(weakened(order, lost), Access::Both, |order| self.model.fetch_add(value, order))
    }

    #[track_caller]
    pub fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        self.fetch_add(value.wrapping_neg(), order)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Load,
    Store,
    Both,
}

/// What an access asks for, each of which can be taken from it.
fn guarantees<M: Model>(order: Ordering, access: Access) -> Vec<Guarantee> {
    let mut asked = match order {
        Ordering::Relaxed => vec![],
        Ordering::Acquire => vec![Guarantee::Acquire],
        Ordering::Release => vec![Guarantee::Release],
        Ordering::AcqRel => vec![Guarantee::Acquire, Guarantee::Release],
        _ => vec![Guarantee::TotalOrder],
    };
    if access == Access::Both && M::CAN_TEAR {
        asked.push(Guarantee::Atomicity);
    }
    asked
}

/// The order without what it has lost.
fn weakened(order: Ordering, lost: Option<Guarantee>) -> Ordering {
    match (order, lost) {
        (Ordering::SeqCst, Some(Guarantee::TotalOrder)) => Ordering::AcqRel,
        (Ordering::AcqRel, Some(Guarantee::Acquire)) => Ordering::Release,
        (Ordering::AcqRel, Some(Guarantee::Release)) => Ordering::Acquire,
        (Ordering::Acquire, Some(Guarantee::Acquire)) | (Ordering::Release, Some(Guarantee::Release)) => {
            Ordering::Relaxed
        }
        (order, _) => order,
    }
}

/// What there is of an order at one kind of access.
fn part(order: Ordering, access: Access) -> Ordering {
    match (order, access) {
        (Ordering::Relaxed, _) => Ordering::Relaxed,
        (Ordering::Release, Access::Load) | (Ordering::Acquire, Access::Store) => Ordering::Relaxed,
        (_, Access::Load) => Ordering::Acquire,
        (_, Access::Store) => Ordering::Release,
        (Ordering::Acquire | Ordering::Release, Access::Both) => order,
        (_, Access::Both) => Ordering::AcqRel,
    }
}

/// A value that is reached by pointer. That no two threads use it at once is checked whenever a pointer is asked for.
#[derive(Debug)]
pub struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(loom::cell::UnsafeCell::new(value))
    }

    pub fn get(&self) -> *mut T {
        self.0.with_mut(|value| value)
    }
}

/// futex(2). As in the kernel, the comparison and the falling asleep are one step for those who wake.
pub mod futex {
    use super::{AtomicU32, Guarantee, NOW, Ordering, weaken};
    use std::thread::panicking;
    use std::time::Duration;

    #[track_caller]
    pub fn wait(word: &AtomicU32, expected: u32, patience: Option<Duration>) {
        let lost = weaken::lost(&[Guarantee::Comparison]);
        let mut sleep = word.sleep.0.state.lock().unwrap();
        if lost.is_none() && word.model.load(Ordering::Relaxed) != expected {
            return;
        }
        assert!(!sleep.asleep, "a word of these files has one thread that sleeps on it");
        sleep.asleep = true;
        while sleep.asleep {
            if let Some(patience) = patience
                && sleep.over
            {
                NOW.with(|now| now.set(now.get() + patience));
                sleep.asleep = false;
                break;
            }
            sleep = word.sleep.0.woken.wait(sleep).unwrap();
        }
    }

    #[track_caller]
    pub fn wake(word: &AtomicU32) {
        if panicking() || weaken::lost(&[Guarantee::Wake]).is_some() {
            return;
        }
        let mut sleep = word.sleep.0.state.lock().unwrap();
        if sleep.asleep {
            sleep.asleep = false;
            word.sleep.0.woken.notify_one();
        }
    }
}

/// How a thread sleeps on a word.
#[derive(Clone, Debug)]
pub struct Sleep(Arc<Bed>);

#[derive(Debug)]
struct Bed {
    state: Mutex<Sleeping>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Sleeping {
    asleep: bool,
    /// Patience is over, for those who have some.
    over: bool,
}

impl Default for Sleep {
    fn default() -> Sleep {
        let sleep = Sleep(Arc::new(Bed { state: Mutex::default(), woken: Condvar::new() }));
        SLEEPS.with_borrow_mut(|sleeps| sleeps.push(sleep.clone()));
        sleep
    }
}

/// From now on whoever waits with patience finds that it has passed. Before this, no time passes.
pub fn end_patience() {
    let sleeps = SLEEPS.with_borrow(Vec::clone);
    for Sleep(bed) in sleeps {
        bed.state.lock().unwrap().over = true;
        bed.woken.notify_one();
    }
}

/// A thread's clock, which moves when a wait of that thread ends because its time has passed.
#[derive(Clone, Copy, Debug)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Instant {
        Instant(NOW.with(Cell::get))
    }

    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

loom::thread_local! {
    static NOW: Cell<Duration> = Cell::new(Duration::ZERO);
}

thread_local! {
    // loom runs all threads of a model on the thread of its test.
    static TOTAL_ORDER: Cell<TotalOrder> = const { Cell::new(TotalOrder::AfterStores) };
    static SLEEPS: RefCell<Vec<Sleep>> = const { RefCell::new(Vec::new()) };
}

/// Begins one run of a scenario.
pub fn begin(total_order: TotalOrder) {
    TOTAL_ORDER.set(total_order);
    SLEEPS.take();
}
