//! Enhanced fan-out: subscriptions of registered consumers, their takeover and expiry.
