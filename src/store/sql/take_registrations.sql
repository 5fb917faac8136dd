-- take_registrations
WITH due AS (
    SELECT registration_id FROM registrations WHERE next_poll_at <= $1 AND shop = ANY($3)
    ORDER BY next_poll_at LIMIT 500 FOR UPDATE SKIP LOCKED
)
UPDATE registrations r
SET next_poll_at = least($1 + make_interval(secs => ($2::bigint[])[least(r.polls + 1, cardinality($2::bigint[]))]),
                         -- The moment at which nobody can pay it any more, for as long as that is to come.
                         CASE WHEN r.valid_to > $1 THEN r.valid_to END),
    polls = least(r.polls + 1, 1000)
FROM due WHERE r.registration_id = due.registration_id
RETURNING r.registration_id AS "registration_id: RegistrationId"
