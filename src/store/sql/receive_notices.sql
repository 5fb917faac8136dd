-- receive_notices
INSERT INTO notices (notice_id, shop, body_sha256, body, order_id, transaction_id, attempt_id, is_refund, refund_of, says_settled, state,
                     received_count, received_at, next_action_at)
SELECT n.notice_id, n.shop, n.body_sha256, n.body, n.order_id, n.transaction_id, n.attempt_id, n.is_refund, n.refund_of,
       n.says_settled, n.state,
       n.received_count, $11, CASE WHEN n.state = 'new' THEN $11::timestamptz END
FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::boolean[],
            $9::notice_state[], $10::integer[], $12::boolean[], $13::uuid[])
    AS n (notice_id, shop, body_sha256, body, order_id, transaction_id, attempt_id, says_settled, state, received_count, is_refund, refund_of)
ON CONFLICT ON CONSTRAINT a_notice_is_stored_once
    DO UPDATE SET received_count = notices.received_count + excluded.received_count
RETURNING notice_id AS "notice_id: NoticeId"
