"""Quantise, dequantise and the integer operators, which become both around the plain one."""
