-- The words of the domain. Each enum is spelt as its Rust twin in src/domain; a test compares them.

CREATE TYPE environment AS ENUM ('production', 'sandbox', 'simulator');
CREATE TYPE brake_mode AS ENUM ('run', 'drain', 'stop');
CREATE TYPE currency AS ENUM ('PLN', 'EUR', 'USD', 'GBP', 'CHF', 'SEK', 'HUF', 'CZK', 'BGN', 'RON');
CREATE TYPE subscription_status AS ENUM
    ('registering', 'active', 'past_due', 'paused', 'deactivated', 'cancelled', 'completed');
CREATE TYPE charge_state AS ENUM
    ('planned', 'in_flight', 'paid', 'retry_wait', 'failed', 'held', 'skipped', 'void');
CREATE TYPE attempt_state AS ENUM
    ('in_doubt', 'not_sent', 'refused', 'pending', 'settled', 'rejected', 'absent', 'surplus');
CREATE TYPE decline_class AS ENUM ('never', 'new_card', 'funds', 'soft', 'technical');
CREATE TYPE evidence_kind AS ENUM ('local', 'answer', 'read', 'person');
CREATE TYPE card_concern AS ENUM ('expiring', 'inactive', 'not_recurring');
CREATE TYPE notice_state AS ENUM ('new', 'done', 'foreign', 'orphan');
CREATE TYPE lost_fate AS ENUM ('restored', 'superseded', 'order_id_taken', 'unplaced');
