import CKernels
import Tensors

package enum Activation {
  case identity
  case silu
  case gelu
  case quickGELU
  case relu

  var kernel: at_activation {
    switch self {
    case .identity: AT_IDENTITY
    case .silu: AT_SILU
    case .gelu: AT_GELU
    case .quickGELU: AT_QUICK_GELU
    case .relu: AT_RELU
    }
  }
}

extension Run {
  private static var elements: Int { 16_384 }

  /// x = activation(x)
  package func apply(_ activation: Activation, to x: Matrix) {
    parallel(.elementwise, x.count, grain: Self.elements) { range in
      let base = x.base + range.lowerBound
      var arguments = at_map(x: base, out: base, count: range.count, activation: activation.kernel)
      kernels.map(&arguments)
    }
  }

  /// a = a * alpha + b
  package func add(_ b: Matrix, to a: Matrix, scaledBy alpha: Float = 1) {
    precondition(a.rows == b.rows && a.columns == b.columns)
    parallel(.elementwise, a.count, grain: Self.elements) { range in
      let base = a.base + range.lowerBound
      var arguments = at_add(a: base, b: b.base + range.lowerBound, out: base, count: range.count, alpha: alpha)
      kernels.add(&arguments)
    }
  }

  /// GEGLU: x [rows, 2n] -> out [rows, n] = x[:, :n] * gelu(x[:, n:])
  package func gatedGELU(_ x: Matrix, into out: Matrix) {
    precondition(x.rows == out.rows && x.columns == 2 * out.columns)
    parallel(.elementwise, x.rows, grain: max(1, Self.elements / x.columns)) { range in
      var arguments = at_gated_gelu(
        x: x.row(range.lowerBound), out: out.row(range.lowerBound), rows: range.count, columns: out.columns,
        out_stride: out.columns)
      kernels.gatedGELU(&arguments)
    }
  }

  package func layerNorm(
    _ x: Matrix, into out: Matrix, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>, epsilon: Float
  ) {
    parallel(.normalisation, x.rows, grain: max(1, Self.elements / x.columns)) { range in
      var arguments = at_layer_norm(
        x: x.row(range.lowerBound), halves: false, out: out.row(range.lowerBound), rows: range.count,
        columns: x.columns, gamma: gamma, beta: beta, epsilon: epsilon)
      kernels.layerNorm(&arguments)
    }
  }
}
