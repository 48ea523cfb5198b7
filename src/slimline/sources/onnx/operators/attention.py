"""Attention, rotary embedding and gated units."""
