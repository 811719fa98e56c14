import Glibc
import Tensors

/// Layers in f64 and nested arrays, written from their formulas, to compare whole blocks with.
typealias Rows = [[Double]]

enum Dense {
  static func rows(_ values: [Float], _ columns: Int) -> Rows {
    stride(from: 0, to: values.count, by: columns).map { values[$0..<$0 + columns].map(Double.init) }
  }

  static func linear(_ x: Rows, _ w: DenseMatrix?) -> Rows {
    guard let w else { return [] }
    return x.map { row in
      (0..<w.shape.outputs).map { o in
        row.indices.reduce(w.bias.isEmpty ? 0 : Double(w.bias[o])) { $0 + row[$1] * Double(w[o, $1, 0]) }
      }
    }
  }

  /// 3 x 3, padding 1, of [images * height * width][channels].
  static func convolution(_ x: Rows, height: Int, width: Int, _ w: DenseMatrix?) -> Rows {
    guard let w else { return [] }
    return x.indices.map { place in
      let (image, pixel) = place.quotientAndRemainder(dividingBy: height * width)
      return (0..<w.shape.outputs).map { o in
        var sum = Double(w.bias[o])
        for tap in 0..<9 {
          let (v, u) = (pixel / width + tap / 3 - 1, pixel % width + tap % 3 - 1)
          guard (0..<height).contains(v), (0..<width).contains(u) else { continue }
          let source = x[(image * height + v) * width + u]
          for i in source.indices { sum += source[i] * Double(w[o, i, tap]) }
        }
        return sum
      }
    }
  }

  static func normalised(_ values: [Double], epsilon: Double) -> [Double] {
    let mean = values.reduce(0, +) / Double(values.count)
    let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
    return values.map { ($0 - mean) / (variance + epsilon).squareRoot() }
  }

  static func groupNorm(
    _ x: Rows, images: Int, groups: Int, epsilon: Double, _ gamma: [Float]?, _ beta: [Float]?
  ) -> Rows {
    guard let gamma, let beta else { return [] }
    var result = x
    let pixels = x.count / images
    let size = gamma.count / groups
    for item in 0..<images * groups {
      let (image, group) = item.quotientAndRemainder(dividingBy: groups)
      let places = (0..<pixels * size).map { (image * pixels + $0 / size, group * size + $0 % size) }
      for ((row, c), value) in zip(places, normalised(places.map { x[$0.0][$0.1] }, epsilon: epsilon)) {
        result[row][c] = value * Double(gamma[c]) + Double(beta[c])
      }
    }
    return result
  }

  static func layerNorm(_ x: Rows, _ gamma: [Float]?, _ beta: [Float]?) -> Rows {
    guard let gamma, let beta else { return [] }
    return x.map { row in
      normalised(row, epsilon: 1e-5).enumerated().map { $1 * Double(gamma[$0]) + Double(beta[$0]) }
    }
  }

  static func attention(_ q: Rows, _ k: Rows, _ v: Rows, images: Int, heads: Int) -> Rows {
    let (queries, keys) = (q.count / images, k.count / images)
    let width = q[0].count / heads
    return q.indices.map { row in
      let image = row / queries
      return (0..<heads).flatMap { head -> [Double] in
        let channels = head * width..<(head + 1) * width
        let weights = (0..<keys).map { j in
          exp(channels.reduce(0) { $0 + q[row][$1] * k[image * keys + j][$1] } / Double(width).squareRoot())
        }
        let total = weights.reduce(0, +)
        return channels.map { c in (0..<keys).reduce(0) { $0 + weights[$1] / total * v[image * keys + $1][c] } }
      }
    }
  }

  static func add(_ a: Rows, _ b: Rows) -> Rows { zip(a, b).map { zip($0, $1).map(+) } }
  static func map(_ x: Rows, _ f: (Double) -> Double) -> Rows { x.map { $0.map(f) } }
  static func silu(_ x: Double) -> Double { x / (1 + exp(-x)) }
  static func gelu(_ x: Double) -> Double { x / 2 * (1 + erf(x / 2.0.squareRoot())) }
}
