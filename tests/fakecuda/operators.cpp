#include "operators.h"

namespace fakecuda {

const std::unordered_map<std::string, Operator>& operators() {
  static const auto* operators = new std::unordered_map<std::string, Operator>{
// Written by cuda_operators.py from the table of the installed torch.
#include "cuda_operators.inc"
  };
  return *operators;
}

bool always_waits(const std::string& name) {
  static const auto* names = new std::unordered_set<std::string>{
      "aten::nonzero",
      "aten::nonzero.out",
      "aten::masked_select",
      "aten::masked_select.out",
      "aten::equal",
      "aten::_unique2",
      "aten::_unique",
      "aten::unique_dim",
      "aten::unique_consecutive",
      "aten::multinomial",
      "aten::repeat_interleave.Tensor",
      "aten::bincount",
      "aten::linalg_eig",
      "aten::_linalg_svd.U",
      "aten::linalg_cholesky_ex.L",
      "aten::_linalg_eigh.eigenvalues",
      "aten::linalg_inv_ex.inverse",
  };
  return names->count(name) != 0;
}

bool is_product(const std::string& name) {
  static const auto* names = new std::unordered_set<std::string>{
      "aten::mm",       "aten::mm.out",      "aten::addmm",      "aten::addmm.out",
      "aten::addmm_",   "aten::bmm",         "aten::bmm.out",    "aten::baddbmm",
      "aten::baddbmm.out", "aten::baddbmm_", "aten::addmv.out",  "aten::mv",
      "aten::dot",      "aten::vdot",        "aten::addbmm",     "aten::addbmm.out",
      "aten::addr.out", "aten::_addmm_activation.out",
  };
  return names->count(name) != 0;
}

bool takes_indices(const std::string& name) {
  return name.rfind("aten::index", 0) == 0 || name.rfind("aten::_index_put", 0) == 0;
}

}  // namespace fakecuda
