-- copy_cards
COPY cards (card_id, shop, cid, payment_profile_id, created_at) FROM STDIN (FORMAT binary)
