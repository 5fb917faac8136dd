-- audit_guards_stand
-- Every constraint, index and trigger of migrations/ is there and in force. Their names are written down again here, so that
-- what was dropped is missed. With $2 only those count on which the promise rests: not what is there for speed alone, nor the key of the
-- outbox, which books that are spread over machines cannot have.
WITH expected (kind, relation, name) AS (VALUES
    ('constraint', 'archive', 'archive_pkey'),
    ('constraint', 'archive', 'archive_singleton_check'),
    ('constraint', 'archived_attempts', 'archived_attempts_are_final'),
    ('constraint', 'archived_attempts', 'archived_order_id_is_never_reused'),
    ('constraint', 'archived_charges', 'archived_charges_are_closed'),
    ('constraint', 'archived_charges', 'archived_payments_are_named'),
    ('constraint', 'archived_charges', 'one_archived_charge_per_period'),
    ('constraint', 'archived_events', 'archived_events_are_numbered'),
    ('constraint', 'archived_evidence', 'archived_evidence_pkey'),
    ('constraint', 'archived_notices', 'archived_notices_are_closed'),
    ('constraint', 'archived_notices', 'archived_notices_pkey'),
    ('constraint', 'attempts', 'attempts_attempt_no_check'),
    ('constraint', 'attempts', 'attempts_pkey'),
    ('constraint', 'attempts', 'declines_have_a_class'),
    ('constraint', 'attempts', 'final_attempts_say_when'),
    ('constraint', 'attempts', 'order_id_is_derived'),
    ('constraint', 'attempts', 'order_id_is_never_reused'),
    ('constraint', 'attempts', 'the_gateway_named_it'),
    ('constraint', 'attempts', 'transaction_belongs_to_one_attempt'),
    ('constraint', 'brakes', 'brakes_pkey'),
    ('constraint', 'brakes', 'brakes_shop_check'),
    ('constraint', 'brakes', 'brakes_stage_check'),
    ('constraint', 'brakes', 'pauses_are_drains'),
    ('constraint', 'brakes', 'slow_starts_keep_their_limit'),
    ('constraint', 'brakes', 'slow_starts_run'),
    ('constraint', 'cards', 'aliases_are_of_cards_without_a_profile'),
    ('constraint', 'cards', 'cards_cid_check'),
    ('constraint', 'cards', 'cards_cid_shop_key'),
    ('constraint', 'cards', 'cards_first_transaction_id_shop_key'),
    ('constraint', 'cards', 'cards_have_one_way_to_be_charged'),
    ('constraint', 'cards', 'cards_payment_profile_id_shop_key'),
    ('constraint', 'cards', 'cards_pkey'),
    ('constraint', 'cards', 'cards_without_a_profile_say_who_pays'),
    ('constraint', 'charges', 'charges_amount_minor_check'),
    ('constraint', 'charges', 'charges_attempts_check'),
    ('constraint', 'charges', 'charges_declines_check'),
    ('constraint', 'charges', 'charges_period_no_check'),
    ('constraint', 'charges', 'charges_pkey'),
    ('constraint', 'charges', 'charges_say_why'),
    ('constraint', 'charges', 'charges_unsent_check'),
    ('constraint', 'charges', 'one_charge_per_period'),
    ('constraint', 'charges', 'open_charges_are_looked_at'),
    ('constraint', 'charges', 'paid_charges_name_their_payment'),
    ('constraint', 'daily_permits', 'daily_permits_pkey'),
    ('constraint', 'daily_plans', 'daily_plans_pkey'),
    ('constraint', 'due_periods', 'due_periods_period_no_check'),
    ('constraint', 'due_periods', 'due_periods_pkey'),
    ('constraint', 'events', 'events_are_numbered_per_subscription'),
    ('constraint', 'events', 'events_of_a_subscription_have_a_number'),
    ('constraint', 'events', 'events_pkey'),
    ('constraint', 'evidence', 'evidence_pkey'),
    ('constraint', 'evidence', 'people_say_who_and_why'),
    ('constraint', 'installation', 'installation_pkey'),
    ('constraint', 'installation', 'installation_singleton_check'),
    ('constraint', 'lost_permits', 'lost_permits_pkey'),
    ('constraint', 'notices', 'a_notice_is_stored_once'),
    ('constraint', 'notices', 'new_notices_are_looked_at'),
    ('constraint', 'notices', 'notices_body_sha256_check'),
    ('constraint', 'notices', 'notices_pkey'),
    ('constraint', 'notices', 'notices_shop_fkey'),
    ('constraint', 'outbox', 'outbox_channel_check'),
    ('constraint', 'outbox', 'outbox_event_id_fkey'),
    ('constraint', 'outbox', 'outbox_pkey'),
    ('constraint', 'shops', 'shops_pkey'),
    ('constraint', 'shops', 'shops_shop_check'),
    ('constraint', 'subscriptions', 'subscriptions_amount_minor_check'),
    ('constraint', 'subscriptions', 'subscriptions_external_id_check'),
    ('constraint', 'subscriptions', 'subscriptions_first_period_no_check'),
    ('constraint', 'subscriptions', 'subscriptions_have_a_card'),
    ('constraint', 'subscriptions', 'subscriptions_max_charges_check'),
    ('constraint', 'subscriptions', 'subscriptions_period_check'),
    ('constraint', 'subscriptions', 'subscriptions_pkey'),
    ('constraint', 'subscriptions', 'subscriptions_say_why'),
    ('constraint', 'subscriptions', 'subscriptions_shop_external_id_key'),
    ('constraint', 'worker_runs', 'worker_runs_pkey'),
    ('index', 'archived_attempts', 'archived_attempts_by_transaction'),
    ('index', 'archived_charges', 'archived_charges_by_id'),
    ('index', 'archived_events', 'archived_events_by_id'),
    ('index', 'attempts', 'attempts_declined_by_card'),
    ('index', 'attempts', 'attempts_in_doubt'),
    ('index', 'attempts', 'attempts_retried_by_card'),
    ('index', 'attempts', 'attempts_to_resolve'),
    ('index', 'charges', 'charges_failed'),
    ('index', 'charges', 'charges_held'),
    ('index', 'charges', 'charges_to_send'),
    ('index', 'charges', 'charges_waiting'),
    ('index', 'lost_permits', 'lost_permits_by_period'),
    ('index', 'notices', 'notices_to_read'),
    ('index', 'outbox', 'outbox_due'),
    ('index', 'subscriptions', 'subscriptions_by_card'),
    ('index', 'subscriptions', 'subscriptions_finishing'),
    ('index', 'subscriptions', 'subscriptions_without_card'),
    ('unique index', 'attempts', 'one_live_attempt'),
    ('unique index', 'evidence', 'nobody_declares_twice'),
    ('trigger', 'archived_attempts', 'archived_attempts_stay'),
    ('trigger', 'archived_charges', 'archived_charges_stay'),
    ('trigger', 'archived_events', 'archived_events_stay'),
    ('trigger', 'archived_evidence', 'archived_evidence_stays'),
    ('trigger', 'archived_notices', 'archived_notices_stay'),
    ('trigger', 'attempts', 'absence_needs_two'),
    ('trigger', 'attempts', 'attempt_evidence'),
    ('trigger', 'attempts', 'attempt_facts'),
    ('trigger', 'attempts', 'attempt_insert'),
    ('trigger', 'attempts', 'attempt_needs_evidence'),
    ('trigger', 'attempts', 'attempt_step'),
    ('trigger', 'attempts', 'attempts_are_archived'),
    ('trigger', 'attempts', 'attempts_are_kept'),
    ('trigger', 'cards', 'card_insert'),
    ('trigger', 'cards', 'cards_are_kept'),
    ('trigger', 'charges', 'charge_facts'),
    ('trigger', 'charges', 'charge_gives_up'),
    ('trigger', 'charges', 'charge_goes_on'),
    ('trigger', 'charges', 'charge_insert'),
    ('trigger', 'charges', 'charge_payment'),
    ('trigger', 'charges', 'charge_step'),
    ('trigger', 'charges', 'charges_are_archived'),
    ('trigger', 'charges', 'charges_are_kept'),
    ('trigger', 'events', 'events_are_append_only'),
    ('trigger', 'events', 'events_are_archived'),
    ('trigger', 'evidence', 'absence_is_established'),
    ('trigger', 'evidence', 'evidence_insert'),
    ('trigger', 'evidence', 'evidence_is_append_only'),
    ('trigger', 'evidence', 'evidence_is_archived'),
    ('trigger', 'notices', 'notices_are_archived'),
    ('trigger', 'notices', 'notices_are_kept'),
    ('trigger', 'shops', 'shops_are_kept'),
    ('trigger', 'subscriptions', 'subscription_card'),
    ('trigger', 'subscriptions', 'subscription_insert'),
    ('trigger', 'subscriptions', 'subscription_update'),
    ('trigger', 'subscriptions', 'subscriptions_are_kept')
), found (kind, relation, name, works) AS (
    SELECT 'constraint', c.conrelid, c.conname, c.convalidated AND coalesce(i.indisvalid AND i.indisready, true)
    FROM pg_constraint c LEFT JOIN pg_index i ON i.indexrelid = c.conindid
    WHERE c.connamespace = 'cykl'::regnamespace AND c.conrelid <> 0
    UNION ALL
    SELECT CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, i.indrelid, r.relname, i.indisvalid AND i.indisready
    FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid
    WHERE r.relnamespace = 'cykl'::regnamespace
    UNION ALL
    SELECT 'trigger', t.tgrelid, t.tgname, t.tgenabled IN ('O', 'A')
    FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
    WHERE r.relnamespace = 'cykl'::regnamespace AND NOT t.tgisinternal
)
SELECT NULL::uuid AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('the %s %s on %s is %s', e.kind, e.name, e.relation,
              CASE WHEN f.name IS NULL THEN 'missing' ELSE 'not in force' END) AS "detail!"
FROM expected e
    LEFT JOIN found f ON f.kind = e.kind AND f.relation = to_regclass('cykl.' || e.relation) AND f.name = e.name
WHERE NOT coalesce(f.works, false) AND NOT ($2 AND (e.kind = 'index' OR e.name = 'outbox_event_id_fkey'))
UNION ALL
SELECT NULL, NULL, NULL, format('session_replication_role is %s, so no trigger is in force', current_setting('session_replication_role'))
WHERE current_setting('session_replication_role') <> 'origin'
UNION ALL
SELECT NULL, NULL, NULL, format('the quarter %s of the archive can be changed', c.relname)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = 'cykl'::regnamespace AND c.relkind = 'r' AND p.relname ^@ 'archived_'
  AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = c.relname || '_stays' AND t.tgenabled IN ('O', 'A'))
LIMIT $1
