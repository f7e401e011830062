// The tests that main runs.
#pragma once

namespace antiphon::tests {

void test_attention();
void test_fuzz();
void test_products();
void test_program();
void test_sampler();
void test_threads();

}  // namespace antiphon::tests
