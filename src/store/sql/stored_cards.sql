-- stored_cards
WITH new_cards AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[])
        WITH ORDINALITY AS n (shop, cid, payment_profile_id, first_transaction_id, place)
)
SELECT n.place AS "place!", k.card_id AS "card_id!: CardId", k.cid AS "cid!",
       k.payment_profile_id AS "profile_id: ProfileId", k.first_transaction_id AS "first_transaction_id: FirstTransactionId",
       k.customer, k.aliases, k.is_active AS "is_active!"
FROM new_cards n JOIN cards k ON k.shop = n.shop AND k.cid = n.cid
UNION ALL
SELECT n.place, k.card_id, k.cid, k.payment_profile_id, k.first_transaction_id, k.customer, k.aliases, k.is_active
FROM new_cards n JOIN cards k ON k.shop = n.shop AND k.payment_profile_id = n.payment_profile_id
WHERE k.cid <> n.cid
UNION ALL
SELECT n.place, k.card_id, k.cid, k.payment_profile_id, k.first_transaction_id, k.customer, k.aliases, k.is_active
FROM new_cards n JOIN cards k ON k.shop = n.shop AND k.first_transaction_id = n.first_transaction_id
WHERE k.cid <> n.cid
