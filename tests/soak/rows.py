"""Which test drives which case of load_soak.yaml, and how it differs from what is written there."""

from __future__ import annotations

ROWS = {
    "LS-001": ("test_streams", "test_a_thousand_slow_streams_cost_little_and_come_in_time", "20 s instead of 60"),
    "LS-002": ("test_streams", "test_five_thousand_slow_streams_at_once", "18 s instead of 60"),
    "LS-003": ("test_stalled", "test_stalled_clients_of_a_fast_provider_stay_small_and_are_cut", "150 clients"),
    "LS-004": ("test_stalled", "test_stalled_clients_of_a_fast_provider_stay_small_and_are_cut", "a limit of 15 s"),
    "LS-005": ("test_leaks", "test_ten_thousand_aborted_requests_leave_nothing_behind", ""),
    "LS-006": ("test_leaks", "test_ten_thousand_upstream_resets_leave_nothing_behind", ""),
    "LS-007": ("test_load", "test_names_without_end_make_no_series_and_take_no_memory", "50,000 of a million"),
    "LS-008": ("test_load", "test_names_without_end_make_no_series_and_take_no_memory", "20,000 of 100,000"),
    "LS-009": ("test_load", "test_names_without_end_make_no_series_and_take_no_memory", "50,000 of 100,000"),
    "LS-010": ("test_load", "test_a_provider_that_hangs_does_not_slow_the_others", "6 s"),
    "LS-011": ("test_load", "test_three_times_too_much_leaves_the_goodput_and_is_refused_at_once", "6 s"),
    "LS-012": ("test_load", "test_five_thousand_fresh_connections_bring_no_error", "as fast as it goes"),
    "LS-013": ("test_load", "test_large_prompts_are_held_once_and_do_not_stop_small_ones", "150 prompts"),
    "LS-014": ("test_leaks", "test_ten_thousand_aborted_requests_leave_nothing_behind", "no day: ten thousand of each"),
    "LS-015": ("test_streams", "test_a_thousand_slow_streams_cost_little_and_come_in_time", "20 s instead of 60"),
    "LS-016": ("test_load", "test_slow_heads_slow_bodies_and_slow_readers_keep_nobody_out", "own clients, 10 s"),
}
